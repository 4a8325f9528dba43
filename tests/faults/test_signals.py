"""Ctrl-C and SIGTERM save a checkpoint of the step in which they come, and the same command goes on from it."""

import signal
from functools import partial
from pathlib import Path

import pytest

from tests.faults.commands import lcm
from tests.faults.killing import differing, tree
from tests.faults.spoil import signal_in_step
from tests.faults.trainings import copied
from tests.ranks import finish, start

EVERY_TWO = ["--set", "distill.checkpoint_every=2"]


def saved(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "distill/checkpoints").iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_training_that_is_stopped_saves_a_checkpoint_and_says_so(encoded, tmp_path, number, code):
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert lcm("distill", "--run", copied(encoded, run), *EVERY_TWO).is_clean(0)
    run.rename(whole)
    copied(encoded, run)
    ended = lcm("distill", "--run", run, *EVERY_TWO, fault=partial(signal_in_step, 3, number))
    assert ended.is_clean(code)
    name = signal.Signals(number).name
    said = f"stopped by {name} after step 3 of 4, whose checkpoint is saved; the same command resumes from it"
    assert ended.errors.splitlines()[-1] == f"lcm: distill: {said}"
    assert saved(run) == ["step-0000002", "step-0000003"]
    resumed = lcm("distill", "--run", run, *EVERY_TWO)
    assert resumed.is_clean(0) and "distill: 3/4 steps" in resumed.errors
    assert differing(tree(run), tree(whole)) == []


def test_a_second_ctrl_c_stops_at_once(encoded, tmp_path):
    run = copied(encoded, tmp_path / "run")
    ended = lcm("distill", "--run", run, *EVERY_TWO, fault=partial(signal_in_step, 3, signal.SIGINT, 2))
    assert ended.is_clean(130) and "interrupted" in ended.errors
    assert saved(run) == ["step-0000002"]


def test_sigterm_ends_other_commands_as_ctrl_c_does(encoded, tmp_path):
    fault = partial(raise_in_verification, signal.SIGTERM)
    ended = lcm("verify", "--run", copied(encoded, tmp_path / "run"), fault=fault)
    assert ended.is_clean(143)
    assert ended.errors.splitlines()[-1] == "lcm: stopped by SIGTERM; the same command resumes from here"


def raise_in_verification(number: int) -> None:
    """From now on, this process gets a signal when it begins to verify a cache."""
    from lcm_distill.stages.verify import Check

    setattr(Check, "everything", lambda *_: iter([signal.raise_signal(number)]))  # noqa: B010


def live(run: Path, rank_stopped: int) -> None:
    """Distil as one of several ranks, one of which gets SIGTERM."""
    import os
    import sys

    from lcm_distill import cli

    if int(os.environ["RANK"]) == rank_stopped:
        signal_in_step(3, signal.SIGTERM)
    sys.argv = ["lcm", "distill", "--run", str(run), *EVERY_TWO]
    cli.main()


def test_all_ranks_stop_after_the_step_in_which_one_is_told_to(encoded, tmp_path):
    run = copied(encoded, tmp_path / "run")
    assert finish(start(2, live, run, 1)) == [143, 143]
    assert saved(run) == ["step-0000002", "step-0000003"]
