"""No space, no permission, a device that fails: one line, exit code 4, nothing lost, and the same command resumes."""

import errno
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from lcm_distill.core.hashing import file_sha256
from tests.command_line import shapes
from tests.faults.commands import Ended, lcm
from tests.faults.space import Device, counted_beside, limit_files, refusing, why_no_device

TINY = ["data.images=24", "data.valid_fraction=0.5", "cache.shard_rows=16", "encoders.batch_size=8", "distill.steps=2",
        "distill.batch_size=4", "distill.checkpoint_every=1", "distill.matching.weight=0",
        "distill.adversarial.weight=0", "evaluate.images=4",
        "evaluate.shard_images=4", "evaluate.batch_size=4", "evaluate.teacher=[['euler', 1]]",
        "evaluate.student_steps=[1]", "schedule.steps=[1]", "schedule.samples=4"]  # fmt: skip
STAGES = ("precompute", "distill", "evaluate")
CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
VOLATILE = ("config.toml", "environment.json")
"""Rewritten by every command with what they hold already, or what the next command writes again."""


@dataclass
class Stages:
    """A finished small run, stage by stage.

    Attributes:
        before: by stage, the run folder as it was before. after: as it was after it.
        writes: by stage, how many writes it makes.
    """

    before: dict[str, Path]
    after: dict[str, Path]
    writes: dict[str, int]


@pytest.fixture(scope="module")
def devices(tmp_path_factory) -> None:
    """Devices can be mounted; where they cannot, nothing is made for them."""
    if reason := why_no_device(tmp_path_factory.mktemp("devices")):
        pytest.skip(reason)


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> Stages:
    made, folder = Stages({}, {}, {}), tmp_path_factory.mktemp("stages")
    run = folder / "run"
    for stage in STAGES:
        before = made.before[stage] = folder / f"before-{stage}"
        shutil.copytree(run, before) if run.exists() else before.mkdir()
        assert lcm(stage, *options(stage), "--run", run, fault=refusing(run, 1 << 30)).is_clean(0)
        made.writes[stage] = int(counted_beside(run).read_text())
        made.after[stage] = folder / f"after-{stage}"
        shutil.copytree(run, made.after[stage])
    return made


def options(stage: str) -> list[str]:
    return shapes(TINY) if stage == "precompute" else []


def results(run: Path) -> dict[str, str]:
    """What the same settings make again to the byte: shards, weights, images."""
    kept = [path for path in run.rglob("*") if path.is_file() and is_result(path.relative_to(run))]
    return {str(path.relative_to(run)): file_sha256(path) for path in kept}


def is_result(path: Path) -> bool:
    return path.suffix in (".safetensors", ".png") or (path.parts[0] == "cache" and "c" in path.parts)


def content(run: Path) -> dict[str, str]:
    """Every committed file but logs, heartbeats and what every command rewrites."""
    paths = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    return {str(path): file_sha256(run / path) for path in paths
            if not {"logs", "workers", "tensorboard"} & set(path.parts) and path.name not in VOLATILE}  # fmt: skip


def check_refused(ended: Ended, run: Path, before: Path) -> None:
    """The line names a file of the run and a remedy; nothing that was committed is lost; nothing is left behind."""
    line = ended.errors.strip().rpartition("\n")[2]
    assert line.startswith(f"lcm: {run}") and line.count(": ") >= 3, ended
    now = content(run)
    assert {name: now.get(name) for name in content(before)} == content(before), ended
    assert not list(run.rglob(".writing-*")), ended


def check_resumes(stage: str, run: Path, after: Path) -> None:
    """The same command ends, with what it makes on an undisturbed device."""
    ended = lcm(stage, *options(stage), "--run", run)
    assert ended.is_clean(0), ended
    assert results(run) == results(after)


@pytest.mark.trials(full=81, sample=3)
def test_a_refused_write_is_one_line_and_the_command_resumes(trials, stages, tmp_path):
    """No space, no quota, read-only, no permission or a failed device at the n-th write of a stage."""
    run = tmp_path / "run"
    for trial in trials:
        stage, code = STAGES[trial % 3], CODES[int(trials.random.integers(len(CODES)))]
        shutil.copytree(stages.before[stage], run)
        first = int(trials.random.integers(1, stages.writes[stage] + 1))
        fault = refusing(run, first, code, once=bool(trials.random.integers(2)))
        ended = lcm(stage, *options(stage), "--run", run, fault=fault)
        assert ended.is_clean(0, 4), (stage, first, code, ended)
        if ended.code:
            check_refused(ended, run, stages.before[stage])
            assert os.strerror(code) in ended.errors
        check_resumes(stage, run, stages.after[stage])
        trials.count("one line, resumed" if ended.code else "harmless")
        shutil.rmtree(run)


@pytest.mark.trials(full=39, sample=2)
def test_a_limit_of_files_is_one_line_and_the_command_resumes(trials, stages, tmp_path):
    """Files that cannot grow beyond a size, which native writers meet as well."""
    run = tmp_path / "run"
    for trial in trials:
        stage = STAGES[trial % 3]
        shutil.copytree(stages.before[stage], run)
        size = int(10 ** trials.random.uniform(3.7, 6.5))
        ended = lcm(stage, *options(stage), "--run", run, fault=partial(limit_files, size))
        assert ended.is_clean(0, 4), (stage, size, ended)
        if ended.code:
            check_resumes(stage, run, stages.after[stage])
        trials.count("one line, resumed" if ended.code else "fits")
        shutil.rmtree(run)


@pytest.mark.trials(full=60, sample=2)
def test_a_full_device_is_one_line_and_the_command_resumes(trials, devices, stages, tmp_path):
    """A device of 20 sizes below what each stage needs."""
    for trial in trials:
        stage, place = STAGES[trial % 3], tmp_path / f"device-{trial}"
        before = used(stages.before[stage])
        size = before + int((used(stages.after[stage]) - before) * trials.random.uniform(0, 0.98))
        with Device(place, max(size, 16_384)) as device:
            run = place / "run"
            shutil.copytree(stages.before[stage], run)
            ended = lcm(stage, *options(stage), "--run", run)
            assert ended.is_clean(0, 4), (stage, size, ended)
            if ended.code:
                check_refused(ended, run, stages.before[stage])
                device.grow(256 << 20)
            check_resumes(stage, run, stages.after[stage])
        trials.count("one line, resumed" if ended.code else "fits")


def used(folder: Path) -> int:
    """Bytes that a folder takes, in pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file()) + 4096


def test_an_ordinary_user_mounts_nothing_and_is_told_why(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("tests.faults.space.mount", lambda words: pytest.fail("a mount was tried"))
    assert "needs root" in (why_no_device(tmp_path) or "") and not list(tmp_path.iterdir())
