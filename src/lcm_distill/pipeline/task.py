"""A unit of work: what it is called, what makes it itself, and where it records that it is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """One shard of work.

    Attributes:
        name: unique in its manifest, a file name without suffix.
        fingerprint: hash of everything that decides the result (configuration, inputs, schema version), and
            of nothing else, so that any worker in any order makes the same bytes.
        inputs: what `execute` needs to know.
    """

    name: str
    fingerprint: str
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Progress:
    """How far a piece of long work has come.

    Attributes:
        label: what is being done, in a few words.
        done, total: in `unit`s, counted from the very start, earlier interrupted runs included.
        counts: the other figures worth watching, by name.
        resumed: how many of `done` an earlier run had already finished.
    """

    label: str
    done: int
    total: int
    unit: str
    counts: Mapping[str, float | int | str] = field(default_factory=dict[str, float | int | str])
    resumed: int = 0
