"""Many runs in one process: nothing that a run opened or kept is there after it."""

import gc
import json
import os
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.faults.commands import lcm
from tests.faults.trainings import copied

SETTLED = 3
"""Runs after which libraries have loaded what they load once."""
GROWTH = 8 * 2**20
"""Bytes by which resident memory may grow with each run after these: less than a quarter of a run's states."""


def run_again_and_again(encoded: str, place: str, times: int) -> None:
    """Distil and evaluate copies of a run in this process, and write what it holds after each."""
    from tests.command_line import lcm as lcm_here

    held: list[dict[str, int]] = []
    for _ in range(times):
        run = copied(Path(encoded), Path(place) / "run")
        for stage in ("distill", "evaluate"):
            result = lcm_here(stage, "--run", run)
            assert result.exit_code == 0, result.output
        gc.collect()  # a training is in reference cycles
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files = len(list(Path("/proc/self/fd").iterdir()))
        held.append({"files": files, "threads": threading.active_count(), "bytes": resident})
    (Path(place) / "held.json").write_text(json.dumps(held))


@pytest.mark.trials(full=10, sample=4)
def test_endurance(trials, encoded, tmp_path):
    """Distillations and evaluations, one after the other in one process: open files, threads and memory stay."""
    fault = partial(run_again_and_again, str(encoded), str(tmp_path), trials.number)
    assert lcm("config", "presets", fault=fault, seconds=600).is_clean(0)
    held = json.loads((tmp_path / "held.json").read_text())
    assert len(held) == trials.number > SETTLED
    most = {name: max(run[name] for run in held[:SETTLED]) for name in held[0]}
    for trial in trials:
        growth = GROWTH * max(0, trial - SETTLED + 1)
        assert held[trial]["bytes"] <= most["bytes"] + growth, held
        assert all(held[trial][name] <= most[name] for name in ("files", "threads")), held
        trials.count("flat")
