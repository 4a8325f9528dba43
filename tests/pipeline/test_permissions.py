"""A file that a permission keeps from being read is neither missing nor damaged: nothing is made again in its place."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from lcm_distill.arrays.metadata import read_metadata
from lcm_distill.core.io_errors import UNREACHABLE
from lcm_distill.evaluation.verification import damaged_results
from lcm_distill.pipeline.atomic_writes import require_writable
from lcm_distill.pipeline.hashed_parquet import encode_table, read_table
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.training.checkpointing.description import About, read_about, write_about
from tests.pipeline.workload import TASKS, manifest_in

NOBODY = 65_534


@pytest.fixture
def closed(tmp_path):
    """Closes the folder of the test to whoever runs it; root becomes somebody else until the test ends."""
    if os.geteuid() == 0:
        tmp_path.parent.chmod(0o700)
        yield lambda: os.seteuid(NOBODY)
        os.seteuid(0)
        return
    yield lambda: tmp_path.chmod(0)
    tmp_path.chmod(0o700)


def test_what_may_not_be_read_is_not_called_damaged(closed, tmp_path):
    manifest, run = manifest_in(tmp_path), RunFolder(tmp_path)
    file = manifest.storage.put("shards/0", [b"content"])
    manifest.commit(TASKS[0], [{"row": 0, "status": "ok"}], file)
    part = next(iter(manifest.files()))
    (tmp_path / "table.parquet").write_bytes(encode_table(pa.table({"row": [1]})))
    (tmp_path / "zarr.json").write_text("{}")
    write_about(tmp_path, About(1, "fingerprint"))
    storage = LocalStorage(tmp_path)
    reads: list[Callable[[], object]] = [
        lambda: read_table(tmp_path / "table.parquet", "delete it"),
        lambda: read_metadata(storage, "zarr.json", "repair it"),
        lambda: read_about(tmp_path),
        lambda: storage.listing("manifest"),
        lambda: list(manifest.rows(part)),
        lambda: list(damaged_results(run)),
    ]
    closed()
    for read in reads:
        with pytest.raises(PermissionError) as refused:
            read()
        assert str(refused.value.filename).startswith(str(tmp_path))


@pytest.mark.parametrize("result", ["/sys/result", "/sys/new/result"])
def test_a_place_that_may_not_be_written_is_refused_by_its_name(result):
    with pytest.raises(OSError) as refused:
        require_writable(Path(result))
    assert refused.value.filename == result and refused.value.errno in UNREACHABLE


def test_a_place_that_may_be_written_stays_as_it_was(tmp_path):
    require_writable(tmp_path / "new" / "deeper" / "result")
    assert not list(tmp_path.iterdir())
