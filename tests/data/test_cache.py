"""The cache is plain Zarr v3 to others and verified bytes to us."""

import errno
import os
import threading
from functools import partial

import numpy as np
import pytest
import zarr

from lcm_distill.arrays import reader as reader_module
from lcm_distill.arrays import shard_files
from lcm_distill.arrays.buffers import Buffers
from lcm_distill.arrays.format import Field, describe, encode_shard
from lcm_distill.arrays.reader import FieldReader
from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.manifest_rows import SAMPLE_COLUMNS, SampleRow
from lcm_distill.pipeline.atomic_writes import commit_bytes, commit_parts

FIELD = Field("latents_64", rows=23, shape=(4, 8, 8), shard_rows=8)


@pytest.fixture
def rows() -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((23, 4, 8, 8)).astype(np.float16)
    rows[5] = np.nan  # a quarantined sample
    return rows


@pytest.fixture
def cache(tmp_path, rows):
    commit_bytes(tmp_path / FIELD.name / "zarr.json", describe(FIELD, {"scaling_factor": 0.5}))
    for shard in range(FIELD.shards):
        parts, _ = encode_shard(FIELD, rows[shard * 8 : (shard + 1) * 8])
        commit_parts(FIELD.shard_path(tmp_path, shard), parts)
    return tmp_path


def test_zarr_reads_what_was_written(cache, rows):
    array = zarr.open_array(cache / FIELD.name, mode="r")
    assert array.shape == (23, 4, 8, 8) and array.attrs["scaling_factor"] == 0.5
    np.testing.assert_array_equal(array[:], rows)


def test_shards_are_byte_for_byte_those_of_zarr(cache, rows, tmp_path_factory):
    peer = tmp_path_factory.mktemp("peer")
    commit_bytes(peer / FIELD.name / "zarr.json", describe(FIELD, {}))
    zarr.open_array(peer / FIELD.name, mode="r+")[:] = rows
    # Zarr leaves out a chunk of nothing but NaN, as shard 0 has one; ours keeps it, so that rows stay in place.
    for shard in (1, 2):
        ours, theirs = (FIELD.shard_path(root, shard).read_bytes() for root in (cache, peer))
        assert ours == theirs


@pytest.fixture(params=["direct", "mapped"])
def file_kind(request, monkeypatch):
    kind = {"direct": shard_files.DirectFile, "mapped": shard_files.MappedFile}[request.param]
    monkeypatch.setattr(shard_files, "ShardFile", kind)


@pytest.mark.parametrize("wanted", [range(23), [7, 8, 6, 9], [22, 0, 5, 9, 9, 15], [3], []])
def test_reader_equals_zarr(cache, file_kind, wanted):
    theirs = np.asarray(zarr.open_array(cache / FIELD.name, mode="r")[:])[list(wanted)]
    ours = FieldReader(cache, FIELD)[np.array(wanted, int)]
    assert ours.dtype == np.float16
    np.testing.assert_array_equal(ours, theirs)


def test_many_threads_and_few_open_files_change_nothing(cache, rows, monkeypatch):
    monkeypatch.setattr(reader_module, "THREAD_BYTES", 1024)
    monkeypatch.setattr(reader_module, "OPEN_SHARDS", 1)
    monkeypatch.setattr(reader_module, "RUN_ROWS", 3)
    before, reader = set(threading.enumerate()), FieldReader(cache, FIELD)
    for seed in range(20):
        wanted = np.random.default_rng(seed).integers(0, 23, 60)
        np.testing.assert_array_equal(reader[wanted], rows[wanted])
    own = set(threading.enumerate()) - before
    assert own
    reader.close()
    assert not own & set(threading.enumerate())


def test_what_is_held_is_never_written_over(cache, rows):
    reader = FieldReader(cache, FIELD)
    held = [reader[np.arange(start, start + 6)][1:, 0] for start in range(17)]  # views of what was returned
    for start, view in enumerate(held):
        np.testing.assert_array_equal(view, rows[start + 1 : start + 6, 0])


def test_memory_is_used_again_once_free():
    buffers = Buffers(partial(np.empty, dtype=np.uint8))
    first = buffers.empty((4, 8))
    address, view = first.ctypes.data, first.view(np.float16)[1:]
    del first
    assert buffers.empty((4, 8)).ctypes.data != address
    del view
    assert address in {array.ctypes.data for array in [buffers.empty((4, 8)) for _ in range(2)]}


def test_rows_are_read_into_the_memory_that_is_given(cache, rows):
    pool = [np.empty(64 * FIELD.row_bytes, np.uint8)]  # a second one is not to be had
    reader = FieldReader(cache, FIELD, allocate=lambda size: pool.pop())
    memory = pool[0]
    for wanted in (np.arange(23), np.array([5, 1])):
        batch = reader[wanted]
        assert np.shares_memory(batch, memory)
        np.testing.assert_array_equal(batch, rows[wanted])
        del batch


@pytest.mark.parametrize("row", [-1, 23])
def test_rows_that_are_not_there_are_refused(cache, row):
    with pytest.raises(IndexError, match="rows 0 to 22"):
        FieldReader(cache, FIELD)[np.array([1, row])]


def test_damaged_index_is_refused(cache, file_kind):
    path = FIELD.shard_path(cache, 0)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path} has an index"):
        FieldReader(cache, FIELD)[np.array([0])]


def test_shard_cut_short_after_it_was_opened_is_named(cache, monkeypatch):
    monkeypatch.setattr(shard_files, "ShardFile", shard_files.DirectFile)
    path, reader = FIELD.shard_path(cache, 1), FieldReader(cache, FIELD)
    reader[np.array([8])]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=f"{path}: row 9 is cut short"):
        reader[np.array([8, 9])]


def test_reader_gathers_any_rows(cache, rows):
    wanted = np.array([22, 0, 5, 9, 9, 15])
    np.testing.assert_array_equal(FieldReader(cache, FIELD)[wanted], rows[wanted])


def test_flipped_bit_is_named(cache, file_kind):
    path = FIELD.shard_path(cache, 1)
    content = bytearray(path.read_bytes())
    content[3 * (FIELD.row_bytes + 4) + 17] ^= 1
    path.write_bytes(content)
    reader = FieldReader(cache, FIELD)
    reader[np.array([8, 9, 10])]
    with pytest.raises(DataError, match=f"{path}: row 11 does not match its checksum"):
        reader[np.array([10, 11])]


def test_missing_and_short_shards_are_refused(cache, file_kind):
    path = FIELD.shard_path(cache, 2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short"):
        FieldReader(cache, FIELD)[np.array([20])]
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        FieldReader(cache, FIELD)[np.array([20])]


def test_an_error_of_the_disk_names_the_shard(cache, monkeypatch):
    monkeypatch.setattr(shard_files, "ShardFile", shard_files.DirectFile)
    reader = FieldReader(cache, FIELD)
    reader[np.array([8])]

    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(shard_files.os, "preadv", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        reader[np.array([8])]
    assert caught.value.filename == str(FIELD.shard_path(cache, 1))


def test_rows_of_the_manifest_are_typed_by_column():
    assert list(SampleRow.__annotations__) == SAMPLE_COLUMNS.names
