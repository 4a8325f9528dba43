"""A small run of the embedded default, made once and shared."""

import os
import signal
from pathlib import Path

import pytest
import torch

from lcm_distill.config import Config, load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from tests.s3 import bucket, google_bucket  # noqa: F401  (fixtures)

SMALL = [
    "data.images=72",
    "data.valid_fraction=0.3",
    "cache.shard_rows=16",
    "encoders.batch_size=8",
    "distill.steps=6",
    "distill.batch_size=8",
    "distill.checkpoint_every=2",
    "distill.matching.weight=0",  # a critic makes a step three times as long; tests/training/test_recipe.py has it
    "distill.adversarial.weight=0",
    "evaluate.models=['teacher', 'student']",  # the third: tests/integration/test_untrained.py
    "evaluate.images=14",
    "evaluate.shard_images=6",
    "evaluate.batch_size=4",
    "evaluate.teacher=[['heun', 3], ['euler', 2]]",
    "evaluate.student_steps=[1, 2]",
]


TRIED = "What was tried"
"""Heading of the reliability table, and the key that its rows have among a test's properties."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Small tensors gain nothing from threads.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_config() -> Config:
    return load_preset("shapes", SMALL)


def run_all(config: Config, root: Path) -> list[Progress]:
    """All three stages into `root`; returns everything they told."""
    from lcm_distill.stages.distill import distill
    from lcm_distill.stages.evaluate import evaluate
    from lcm_distill.stages.precompute import precompute

    run = RunFolder(root)
    run.open(config)
    return [report for stage in (precompute, distill, evaluate) for report in stage(config, run)]


@pytest.fixture(scope="session")
def finished_run(small_config, tmp_path_factory) -> RunFolder:
    root = tmp_path_factory.mktemp("finished")
    run_all(small_config, root)
    return RunFolder(root)


@pytest.fixture
def short_trajectories(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher's response to the guidance scale takes 3 solver steps, for tests that are not about its value."""
    shorten_trajectories(monkeypatch)


def shorten_trajectories(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lcm_distill.evaluation.guidance_response_measurement.SOLVER_STEPS", 3)


def pytest_configure() -> None:
    # No test outlasts the power, and thousands of waits for a disk take minutes: tests/pipeline/test_commit.py.
    os.fsync = os.fstat  # which refuses what is no open file as well
    # Shells start what they run in the background with Ctrl-C ignored, which child processes would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-trials", action="store_true", help="make all trials of tests/faults, not a few of each row")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the rows of the reliability table, also of tests that ran in other processes."""
    reports = [report for outcome in terminalreporter.stats.values() for report in outcome]
    rows = sorted(
        {row for report in reports for heading, row in getattr(report, "user_properties", ()) if heading == TRIED}
    )
    if rows:
        terminalreporter.write_line(f"\n| {TRIED} | trials | outcomes |\n|---|---|---|\n" + "\n".join(rows))
