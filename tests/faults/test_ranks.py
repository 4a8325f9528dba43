"""A training whose number of ranks changes from one life to the next."""

import signal
import sys
from pathlib import Path

import pytest

from lcm_distill.models import read_tensors
from tests.faults.commands import lcm
from tests.faults.spoil import die_after_step
from tests.faults.trainings import copied
from tests.ranks import assert_same_weights, finish, start

LIVES = ((2, 1), (1, 2), (3, 3), (2, None))
"""Ranks of each life, and the number of steps after which it is killed."""


def live(run: Path, sharding: str, killed_after: int | None) -> None:
    """Distil as one of several ranks, in this process, until it ends or is killed."""
    from tests.command_line import lcm as lcm_here

    if killed_after is not None:
        die_after_step(killed_after)
    result = lcm_here("distill", "--run", run, "--set", f"engine.sharding={sharding}")
    if result.exit_code:
        print(result.output, file=sys.stderr)
        sys.exit(result.exit_code)


@pytest.mark.trials(full=6, sample=1)
def test_ranks(trials, encoded, tmp_path):
    """Ranks 2 -> 1 -> 3 -> 2, each life killed, replicated or sharded: the weights of one unbroken process."""
    unbroken = copied(encoded, tmp_path / "unbroken")
    assert lcm("distill", "--run", unbroken).is_clean(0)
    for trial in trials:
        run = copied(encoded, tmp_path / "run")
        for ranks, killed_after in LIVES:
            sharding = "fsdp" if trial and trials.random.random() < 0.5 else "none"
            codes = finish(start(ranks, live, run, sharding, killed_after))
            if killed_after is None:
                assert codes == [0] * ranks
            else:
                assert codes[0] == -signal.SIGKILL and not (run / "student.safetensors").exists()
        assert_same_weights(*(read_tensors(root / "student.safetensors") for root in (run, unbroken)))
        trials.count("the same weights up to rounding")
