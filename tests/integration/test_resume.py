"""Interrupted anywhere, the same command goes on and ends with the same result."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lcm_distill.pipeline import atomic
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.distill import distill
from lcm_distill.stages.precompute import precompute
from tests.command_line import PROCESS, shapes
from tests.conftest import SMALL, run_all
from tests.files import Crash, shard_files

MOVING = ("seconds_per_image", "time", "checkpoint", "commit")


def results(run: RunFolder) -> dict[str, object]:
    """Everything a run leaves that must not depend on how often it was interrupted."""
    rows = pq.read_table(run.metrics).drop_columns(list(MOVING)).to_pylist()
    images = {path.relative_to(run.root): path.read_bytes() for path in sorted(run.evaluate.rglob("*.png"))}
    losses = np.concatenate([
        pq.read_table(path)["loss"].to_numpy() for path in sorted((run.distill / "events").glob("*.parquet"))
    ])  # fmt: skip
    return {
        "metrics": rows,
        "images": images,
        "shards": shard_files(run.cache),
        "student": run.student.read_bytes(),
        "losses": losses.tolist(),
    }


MOMENTS = [
    "images/data/train/imgs/*/*.jpg",
    "cache/catalog/*.parquet",
    "cache/manifest/*.parquet",
    "distill/events/*.parquet",
    "distill/checkpoints/step-*4",
    "student.safetensors",
    "evaluate/*/manifest/*.parquet",
    "evaluate/student-*/manifest/*.parquet",
]
"""What is on disk for the first time when a run is killed, a random fraction of a second later."""


@pytest.mark.parametrize(
    "moments", [pytest.param(MOMENTS[1::3], id="in each stage"), pytest.param(MOMENTS, marks=pytest.mark.slow)]
)
def test_killed_again_and_again(tmp_path, moments):
    """kill -9 in every stage; each life is a process of its own, as on a real machine."""
    unbroken, broken = RunFolder(tmp_path / "unbroken"), RunFolder(tmp_path / "broken")
    assert start_run(unbroken.root).wait() == 0
    chance = random.Random(0)
    for moment in moments:
        life = start_run(broken.root)
        while not any(broken.root.glob(moment)):
            assert life.poll() is None
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.3))
        life.send_signal(signal.SIGKILL)
        life.wait()
    assert not broken.grid.exists()
    assert start_run(broken.root).wait() == 0
    assert results(broken) == results(unbroken)


def start_run(root: Path) -> subprocess.Popen[bytes]:
    options = shapes(SMALL)
    command = [*PROCESS, "run", *options, "--run", str(root)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("stage", [precompute, distill])
def test_crash_at_every_commit(small_config, finished_run, tmp_path, monkeypatch, stage):
    """Every file's commit crashes once before its rename and once after it."""
    run = RunFolder(tmp_path)
    if stage is distill:
        list(precompute(small_config, run))
    real_replace, crashed = os.replace, set()

    def crash_once(target, moment):
        if (target, moment) not in crashed:
            crashed.add((target, moment))
            raise Crash

    def crashing_replace(source, target):
        crash_once(target, "before")
        real_replace(source, target)
        crash_once(target, "after")

    monkeypatch.setattr(atomic.os, "replace", crashing_replace)
    finished = False
    while not finished:
        try:
            run.open(small_config)
            list(stage(small_config, run))
            finished = True
        except Crash:
            pass
    monkeypatch.undo()
    assert len(crashed) > 10
    if stage is precompute:
        assert shard_files(run.cache) == shard_files(finished_run.cache)
    else:
        assert run.student.read_bytes() == finished_run.student.read_bytes()


def test_finished_run_does_nothing_again(small_config, finished_run):
    before = {path: path.stat().st_mtime_ns for path in finished_run.evaluate.rglob("*") if path.is_file()}
    began = time.perf_counter()
    reports = run_all(small_config, finished_run.root)
    assert all(report.done == report.resumed for report in reports if report.done == report.total)
    assert {path: path.stat().st_mtime_ns for path in before} == before, began
