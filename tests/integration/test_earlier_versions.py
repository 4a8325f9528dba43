"""Images and figures of versions that identified a checkpoint by the hash of its file are kept, and not made again."""

import shutil

import pyarrow.parquet as pq
import pytest

from lcm_distill.core.hashing import file_sha256
from lcm_distill.evaluation import image_sets
from lcm_distill.models.checkpoint import checkpoint_sha256
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.evaluate import evaluate
from tests.runs import borrow


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """The finished small run, not evaluated."""
    return borrow(finished_run, tmp_path, "config.toml", "student.safetensors", linked=("images", "cache"))


def test_images_of_earlier_versions_are_kept(small_config, run, monkeypatch):
    config = small_config.changed(["evaluate.models=['student']", "evaluate.images=6"], "test")
    with monkeypatch.context() as earlier:
        earlier.setattr(image_sets, "checkpoint_sha256", file_sha256)
        list(evaluate(config, run))
    folders, measured = sorted(run.evaluate.iterdir()), pq.read_table(run.metrics).to_pylist()
    student = [row for row in measured if row["model"] == "student"]
    assert (
        {row["checkpoint_sha256"] for row in student} == {file_sha256(run.student)} != {checkpoint_sha256(run.student)}
    )
    monkeypatch.setattr("lcm_distill.api.TextToImage.generate", None)
    list(evaluate(config, run))
    assert sorted(run.evaluate.iterdir()) == folders
    again = pq.read_table(run.metrics).to_pylist()
    assert {row["checkpoint_sha256"] for row in again if row["model"] == "student"} == {checkpoint_sha256(run.student)}
    assert [row["value"] for row in again] == [row["value"] for row in measured]


def test_another_checkpoint_has_images_of_its_own(small_config, run, finished_run):
    """The earlier place is that of the same file alone."""
    config = small_config.changed(["evaluate.models=['student']", "evaluate.images=6"], "test")
    shutil.copytree(finished_run.evaluate, run.evaluate)
    before = {path.name for path in run.evaluate.glob("student-*")}
    list(evaluate(config, run))
    assert {path.name for path in run.evaluate.glob("student-*")} > before  # 6 captions, not 14
