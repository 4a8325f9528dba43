"""Units of work and the progress of work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """One shard of work.

    Attributes:
        name: unique in its manifest; a file name without suffix.
        fingerprint: hash of exactly what determines the result: configuration, inputs and schema version. Any worker in
            any order produces the same bytes.
        inputs: arguments of the work.
    """

    name: str
    fingerprint: str
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def size(self) -> int:
        """Number of rows or images, of a task whose inputs are a range: from `start` to before `stop`."""
        return self.inputs["stop"] - self.inputs["start"]


@dataclass(frozen=True)
class Progress:
    """Progress of long work.

    Attributes:
        label: what is being done, in a few words.
        done, total: number of `unit`s, including those done by earlier interrupted runs. The last `Progress` of a piece
            of work is the only one in which they are equal.
        counts: other figures to show, by name.
        resumed: how many of `done` an earlier run had already finished.
    """

    label: str
    done: int
    total: int
    unit: str
    counts: Mapping[str, float | int | str] = field(default_factory=dict[str, float | int | str])
    resumed: int = 0
