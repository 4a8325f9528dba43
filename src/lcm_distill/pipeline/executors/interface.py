"""The interface of executors, and of the work that they execute."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.manifest_parts import Entry
from lcm_distill.pipeline.storage import WrittenFile
from lcm_distill.pipeline.task import Task

Outcome = tuple[Task, Sequence[Mapping[str, Any]], WrittenFile | None]
"""A finished task, its manifest rows and the file it wrote."""

Execute = Callable[[Iterable[Task]], Iterator[Outcome]]
"""Does the work of tasks in any order, and yields each when its file is written. A task is running from when it is
taken from the iterable."""

Open = Callable[[str | None], Execute]
"""Prepares the work on a device; None leaves the device to the configuration. It is pickled and sent to workers."""


class Commit(NamedTuple):
    """A committed task.

    Attributes:
        resumed: whether it was committed before this call.
        entry: its entry in the footer of the manifest part.
    """

    task: Task
    resumed: bool
    entry: Entry


class Executor(Protocol):
    """Runs tasks and commits them.

    Attributes:
        leads: whether this process prepares what other ranks wait for, and reports; False for all ranks but the first.
    """

    @property
    def leads(self) -> bool:
        """Whether this process prepares what other ranks wait for, and reports."""
        ...

    def run(self, tasks: Sequence[Task], manifest: Manifest, open_work: Open) -> Iterator[Commit]:
        """Execute and commit every task that has no valid commit yet.

        Yields:
            each task once it is committed; tasks that were committed before this call come first.

        Raises:
            WorkError: tasks failed repeatedly; all others are committed.
        """
        ...
