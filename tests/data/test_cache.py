"""The cache is plain Zarr v3 to others and verified bytes to us."""

import numpy as np
import pytest
import zarr

from lcm_distill.data.cache import Field, FieldReader, describe, encode_shard
from lcm_distill.errors import DataError
from lcm_distill.pipeline.atomic import commit_bytes

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
        content, _ = encode_shard(FIELD, rows[shard * 8 : (shard + 1) * 8])
        commit_bytes(FIELD.shard_path(tmp_path, shard), content)
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


def test_reader_gathers_any_rows(cache, rows):
    wanted = np.array([22, 0, 5, 9, 9, 15])
    np.testing.assert_array_equal(FieldReader(cache, FIELD)[wanted], rows[wanted])


def test_flipped_bit_is_named(cache):
    path = FIELD.shard_path(cache, 1)
    content = bytearray(path.read_bytes())
    content[3 * (FIELD.row_bytes + 4) + 17] ^= 1
    path.write_bytes(content)
    reader = FieldReader(cache, FIELD)
    reader[np.array([8, 9, 10])]
    with pytest.raises(DataError, match="row 11 does not match its checksum"):
        reader[np.array([10, 11])]


def test_missing_and_short_shards_are_refused(cache):
    path = FIELD.shard_path(cache, 2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short"):
        FieldReader(cache, FIELD)[np.array([20])]
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        FieldReader(cache, FIELD)[np.array([20])]
