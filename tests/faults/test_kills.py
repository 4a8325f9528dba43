"""Killed at any moment, the same command resumes and leaves what an unbroken one leaves, file for file."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.faults.killing import count_calls, counted, differing, in_environment, kill_after, kill_at, tree
from tests.faults.small_runs import SmallRuns
from tests.faults.trials import Trials

Fault = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A command, and the run that it begins with.

    Attributes:
        words: the command line.
        state: as `SmallRuns.restore` takes it.
        then: commands that complete the work, broken or not.
    """

    words: Sequence[str]
    state: str | None
    then: Sequence[Sequence[str]] = ()


class Killing:
    """Kills the commands of small runs; what unbroken ones do is measured once for each."""

    def __init__(self, runs: SmallRuns, environment: dict[str, str]) -> None:
        self.runs, self.environment = runs, environment
        self._unbroken: dict[str, tuple[dict[str, object], dict[str, int], float]] = {}

    def do(self, case: Case, fault: Fault | None = None):
        """How the command ends, with a fault."""
        return self.runs.do(*case.words, fault=partial(in_environment, self.environment, fault))

    def unbroken(self, case: Case) -> tuple[dict[str, object], dict[str, int], float]:
        """What the command leaves, its calls by kind, and its seconds."""
        key = " ".join(case.words)
        if key not in self._unbroken:
            counts = self.runs.place / f"calls-{len(self._unbroken)}"
            counts.mkdir()
            self.runs.restore(case.state)
            began = time.perf_counter()
            ended = self.do(case, partial(count_calls, counts))
            assert ended.is_clean(0), ended
            seconds = time.perf_counter() - began
            self.complete(case)
            self._unbroken[key] = tree(self.runs.root), counted(counts), seconds
        return self._unbroken[key]

    def complete(self, case: Case) -> None:
        """Do what completes the work."""
        for words in case.then:
            self.runs.make(*words)

    def fault(self, case: Case, random: np.random.Generator, with_signal: signal.Signals = signal.SIGKILL) -> Fault:
        """A signal at a random moment, or at a random one of the command's calls."""
        _, calls, seconds = self.unbroken(case)
        kind = random.choice([*(kind for kind, number in calls.items() if number), "moment"])
        if kind == "moment":
            return partial(kill_after, random.uniform(0.02, seconds), with_signal)
        return partial(kill_at, str(kind), int(random.integers(calls[kind])) + 1, bool(random.integers(2)), with_signal)

    def try_once(self, case: Case, trials: Trials, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """One kill, perhaps another one of the command that resumes, and the comparison."""
        whole, _, _ = self.unbroken(case)
        self.runs.restore(case.state)
        faults = [self.fault(case, trials.random, with_signal) for _ in range(1 + int(trials.random.random() < 0.2))]
        ends = [self.do(case, fault) for fault in faults]
        codes = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
        for fault, ended in zip(faults, ends, strict=True):
            assert ended.code in (0, codes[with_signal]), (case, fault, ended)
            assert ended.code < 0 or ended.is_clean(0, 130, 143), (case, fault, ended)
        resumed = self.do(case)
        assert resumed.is_clean(0), (case, faults, resumed)
        self.complete(case)
        assert differing(tree(self.runs.root), whole) == [], (case, faults)
        trials.count("stopped and resumed" if any(end.code for end in ends) else "had finished")


@pytest.fixture(scope="module")
def killing(tmp_path_factory) -> Killing:
    return Killing(SmallRuns(tmp_path_factory.mktemp("kills")), {})


@pytest.fixture(scope="module")
def repair(killing) -> Case:
    """A repair. What it has revoked when it is killed is pending, and `precompute` makes it."""
    killing.runs.restore("cached")
    damage(killing.runs.root)
    killing.runs.keep("damaged")
    return Case(["verify", "--repair"], "damaged", [["precompute"]])


@pytest.fixture
def pull(killing, request) -> Callable[[], Case]:
    """A copy from an object store, which is started when it is called."""

    def start() -> Case:
        bucket = request.getfixturevalue("bucket")
        killing.environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        if "in a store" not in killing.runs.states:
            stored = Case(["precompute", *killing.runs.new, "--set", f"cache.location={bucket}/kills"], None)
            killing.runs.restore(None)
            assert killing.do(stored).code == 0
            killing.runs.keep("in a store")
        return Case(["cache", "pull"], "in a store")

    return start


def damage(run: Path) -> None:
    """Flip a byte of a shard, cut another one short, and remove a third one."""
    shards = sorted(path for path in (run / "cache").glob("*/c/**/*") if path.is_file())
    content = bytearray(shards[0].read_bytes())
    content[100] ^= 1
    shards[0].write_bytes(content)
    shards[-1].write_bytes(shards[-1].read_bytes()[:-9])
    shards[1].unlink()


@pytest.mark.trials(full=75, sample=2)
def test_caches(killing, repair, pull, trials):
    """Killed while a cache is made, repaired, compacted or pulled."""
    precompute, compact = Case(["precompute", *killing.runs.new], None), Case(["cache", "compact"], "cached")
    cases = [lambda: precompute, lambda: repair, lambda: compact, pull]
    for trial in trials:
        killing.try_once(cases[trial % len(cases)](), trials)


@pytest.mark.trials(full=65, sample=1)
def test_trainings(killing, trials):
    """Killed while a student or a teacher is trained."""
    cases = [Case(["distill"], "cached"), Case(["distill"], "cached"), Case(["pretrain"], "cached")]
    for trial in trials:
        killing.try_once(cases[trial % len(cases)], trials)


@pytest.mark.trials(full=60, sample=1)
def test_results(killing, trials):
    """Killed while a student is evaluated, scheduled or exported."""
    export = ["export", "--format"]
    cases = [
        Case(["evaluate"], "trained"), Case(["schedule"], "trained"), Case(["evaluate"], "trained"),
        Case([*export, "safetensors"], "trained"), Case([*export, "pt"], "trained"),
    ]  # fmt: skip
    for trial in trials:
        killing.try_once(cases[trial % len(cases)], trials)


@pytest.mark.trials(full=24, sample=1)
def test_signals(killing, trials):
    """Stopped by Ctrl-C or SIGTERM."""
    cases = [Case(["distill"], "cached"), Case(["precompute", *killing.runs.new], None), Case(["evaluate"], "trained")]
    for trial in trials:
        killing.try_once(cases[trial % len(cases)], trials, (signal.SIGINT, signal.SIGTERM)[trial % 2])
