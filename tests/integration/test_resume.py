"""Interrupted anywhere, the same command goes on and ends with the same result; `tests/faults` has kills."""

import os
import time

import pytest

from lcm_distill.pipeline import atomic_writes
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.distill import distill
from lcm_distill.stages.precompute import precompute
from tests.conftest import run_all
from tests.files import Crash, shard_files


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

    monkeypatch.setattr(atomic_writes.os, "replace", crashing_replace)
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
