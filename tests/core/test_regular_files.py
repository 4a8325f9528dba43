"""Pipes where files are expected: an error, and never a wait."""

import os

import pytest

from lcm_distill.config import load_file
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import file_sha256
from lcm_distill.core.regular_files import open_to_write, read_regular
from lcm_distill.evaluation.prompt_files import read_prompts
from lcm_distill.metrics.reference_files import read_statistics
from lcm_distill.models.checkpoint import read_description, read_tensors
from lcm_distill.pipeline.hashed_parquet import read_table
from lcm_distill.pipeline.lock_owner import read_owner
from lcm_distill.pipeline.storage import LocalStorage

pytestmark = pytest.mark.timeout(60)

READERS = {
    "prompts.txt": read_prompts,
    "statistics.npz": lambda path: read_statistics(path, 2),
    "config.toml": load_file,
    "student.safetensors": read_description,
    "weights.pt": read_tensors,
    "shard": lambda path: LocalStorage(path.parent).read(path.name),
    "metrics.parquet": lambda path: read_table(path, "delete it"),
    "hashed": file_sha256,
    "read": read_regular,
    "written": open_to_write,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_an_error_that_names_it(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises((UserError, OSError)) as refused:
        READERS[name](tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


def test_a_pipe_names_no_owner(tmp_path):
    os.mkfifo(tmp_path / "distill")
    assert read_owner(tmp_path / "distill") is None
