"""A training goes on to the same bits after any interruption, and to the same losses on any number of ranks."""

import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lcm_distill.config import load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.distill import distill, prepare
from tests.conftest import SMALL
from tests.ranks import finish, start

TINY = [*SMALL, "distill.steps=60", "distill.checkpoint_every=10", "distill.batch_size=6", "engine.tensorboard=false"]


def config_of(settings):
    return load_preset("shapes", [*TINY, *settings])


def train(root: Path, cache: Path, settings: list[str], killed_at: int | None = None) -> None:
    """Train in this process, which is killed after a step if one is given."""
    config, run = config_of(settings), RunFolder(root)
    run.cache = cache
    run.open(config)
    for report in distill(config, run):
        if report.done == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)


def losses(root: Path) -> np.ndarray:
    rows = [row for path in sorted((root / "distill/events").glob("*")) for row in pq.read_table(path).to_pylist()]
    assert [row["step"] for row in rows] == list(range(len(rows)))
    return np.array([row["loss"] for row in rows])


def everything(root: Path, cache: Path, settings: list[str]) -> dict[str, torch.Tensor]:
    """All that a training saved after its last step."""
    run = RunFolder(root)
    run.cache = cache
    training = prepare(config_of(settings), run)
    assert training.checkpoints.load_latest(training.tensors) == 60
    return training.tensors()


def test_killed_at_23_and_41_of_60_steps_it_ends_with_the_same_bits(finished_run, tmp_path):
    cache, unbroken, broken = finished_run.cache, tmp_path / "unbroken", tmp_path / "broken"
    whole = start(1, train, unbroken, cache, [])
    for killed_at in (23, 41):
        assert finish(start(1, train, broken, cache, [], killed_at)) == [-signal.SIGKILL]
        assert not (broken / "student.safetensors").exists()
    assert finish(start(1, train, broken, cache, [])) + finish(whole) == [0, 0]
    one, other = everything(unbroken, cache, []), everything(broken, cache, [])
    assert one.keys() == other.keys()
    assert {name.split(".")[0] for name in one} == {"model", "average", "target", "optimiser"}
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert np.array_equal(losses(unbroken), losses(broken)) and len(losses(broken)) == 60


@pytest.fixture(scope="module")
def alone(finished_run, tmp_path_factory):
    """Losses of a training by one process."""
    root = tmp_path_factory.mktemp("alone")
    assert finish(start(1, train, root, finished_run.cache, [])) == [0]
    return losses(root)


@pytest.mark.parametrize("settings", [["engine.micro_batch=2"]])
def test_passes(finished_run, tmp_path, alone, settings):
    assert finish(start(1, train, tmp_path, finished_run.cache, settings)) == [0]
    print(np.max(np.abs(losses(tmp_path) / alone - 1)))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks(finished_run, tmp_path, alone, ranks):
    assert finish(start(ranks, train, tmp_path, finished_run.cache, [])) == [0] * ranks
    print(ranks, np.abs(losses(tmp_path) / alone - 1))
