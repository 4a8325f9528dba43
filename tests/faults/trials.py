"""Counted trials: a row of the reliability table is a test that makes a number of trials and counts their outcomes."""

import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

SEED = 20
"""Of every row's random numbers; another one makes other trials of the same kinds."""


class Trials:
    """Trials of one row, by number: `for trial in trials`, and `trials.count(outcome)` in each.

    Args:
        row: the name of the row, which addresses its random numbers.
        number: how many trials are made.
    """

    def __init__(self, row: str, number: int) -> None:
        self.row, self.number = row, number
        self.outcomes: Counter[str] = Counter()
        self.random = np.random.default_rng([SEED, zlib.crc32(row.encode())])

    def __iter__(self) -> Iterator[int]:
        yield from range(self.number)

    def count(self, outcome: str) -> None:
        """Count one trial, after its assertions."""
        self.outcomes[outcome] += 1

    @property
    def made(self) -> int:
        """How many trials were counted."""
        return self.outcomes.total()

    def summary(self) -> str:
        """Outcomes with their counts, the most frequent first."""
        return ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
