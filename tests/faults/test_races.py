"""Commands that start together: one owns the run, the others are refused in a line, and nothing is mixed."""

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from tests.faults.commands import Command, Ended
from tests.faults.killing import differing, tree
from tests.faults.small_runs import SmallRuns
from tests.faults.spoil import note_work

OWNED = re.compile(r"lcm: .*: its stage \w+ belongs to `lcm [\w -]+` \(process \d+ on .*, since .*\): wait until .*")
BESIDE = "distill.seed=8"
"""A setting that makes another student of the same cache."""


@dataclass(frozen=True)
class Race:
    """Commands that start together.

    Attributes:
        state: the run that they start with.
        commands: their words; each is one that works alone.
    """

    state: str | None
    commands: Sequence[Sequence[str]]


class Races:
    """Starts commands together, and knows what each of them makes alone."""

    def __init__(self, runs: SmallRuns) -> None:
        self.runs = runs
        self._alone: dict[tuple[str, ...], dict[str, object]] = {}

    def alone(self, state: str | None, words: Sequence[str]) -> dict[str, object]:
        """What a command leaves where no other one runs."""
        key = (str(state), *words)
        if key not in self._alone:
            self.runs.restore(state)
            self.runs.make(*words)
            self._alone[key] = tree(self.runs.root)
        return self._alone[key]

    def start(self, race: Race, random: np.random.Generator) -> tuple[list[Ended], list[list[str]]]:
        """How the commands end, and the work that each of them did."""
        self.runs.restore(race.state)
        notes = [self.runs.place / f"work-{number}" for number in range(len(race.commands))]
        started: list[Command] = []
        for words, place in zip(race.commands, notes, strict=True):
            place.write_text("")
            started.append(Command(*words, "--run", self.runs.root, fault=partial(note_work, place)))
            time.sleep(random.choice([0.0, random.uniform(0, 0.3)]))
        return [command.wait() for command in started], [place.read_text().splitlines() for place in notes]


@pytest.fixture(scope="module")
def races(tmp_path_factory) -> Races:
    return Races(SmallRuns(tmp_path_factory.mktemp("races")))


@pytest.mark.trials(full=50, sample=1)
def test_started_together(races, trials):
    """Commands started together on one run, with equal and with other settings."""
    new = races.runs.new
    kinds = [
        Race("cached", [["distill"], ["distill"]]),
        Race(None, [["precompute", *new], ["precompute", *new], ["precompute", *new]]),
        Race("cached", [["distill", "--set", BESIDE], ["distill"]]),
        Race("cached", [["distill"], ["distill", "--set", BESIDE], ["distill", "--set", "distill.seed=9"]]),
        Race(None, [["precompute", *new], ["precompute", *new, "--set", "seed=3"]]),
        Race(None, [["run", *new], ["precompute", *new]]),
    ]
    for trial in trials:
        race = kinds[trial % len(kinds)]
        ends, work = races.start(race, trials.random)
        left = tree(races.runs.root)
        won = [words for words, ended in zip(race.commands, ends, strict=True) if ended.code == 0]
        assert won, (race, ends)
        for ended in ends:
            assert ended.code == 0 or (ended.is_clean(2) and is_refused(ended)), (race, ended)
        # Whoever starts after the first has ended finds its work done, or is refused for its settings.
        mixed = [differing(left, races.alone(race.state, words)) for words in won]
        assert [] in mixed, (race, mixed)
        # What two have done, two have owned: with equal settings nothing else tells.
        done = Counter(what for noted in work for what in noted)
        assert done and set(done.values()) == {1}, (race, done, ends)
        idle = sum(ended.code == 0 and not noted for ended, noted in zip(ends, work, strict=True))
        trials.count("one worked, others found all done" if idle else "one worked at a time")


def is_refused(ended: Ended) -> bool:
    """Whether it names the owner, or, where that has ended, the settings that its work was made with."""
    line = ended.errors.strip().rpartition("\n")[2]
    return bool(OWNED.fullmatch(line)) or " was made with " in line
