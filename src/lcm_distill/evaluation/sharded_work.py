"""Work on shards of neighbouring images, each with a manifest part: generating images, and extracting features."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from lcm_distill.core.hashing import digest
from lcm_distill.pipeline.executors.interface import Execute, Executor
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.manifest_parts import Entry
from lcm_distill.pipeline.task import Progress, Task


class ShardedWork(Protocol):
    """Something that is made shard by shard."""

    manifest: Manifest

    @property
    def title(self) -> str:
        """Name in progress reports."""
        ...

    def tasks(self) -> list[Task]:
        """One task a shard."""
        ...

    def opened(self, device: str | None = None) -> Execute:
        """Load what the work needs, on the configured device or another, and return what executes tasks."""
        ...


def shards(name: str, fingerprint: str, count: int, size: int) -> list[Task]:
    """A task for every `size` of `count` images, which knows the first and the end of its range."""
    return [
        Task(f"{name}-{start:06d}", digest([fingerprint, start, stop]), {"start": start, "stop": stop})
        for start in range(0, count, size)
        for stop in [min(start + size, count)]
    ]


def shard_size(entries: Iterable[Entry], count: int, configured: int) -> int:
    """Images of a shard: as many as in the shards that are committed, so that none is made twice in another division.

    Args:
        entries: of the committed shards. count: of all images. configured: for work that has not begun.
    """
    first = min(((int(entry.task.rpartition("-")[2]), entry.rows) for entry in entries), default=None)
    if first is None:
        return configured
    start, rows = first
    return start if start and start + rows == count else rows  # of the last shard, only the start tells


def work_through(
    label: str, unit: str, works: Sequence[ShardedWork], executor: Executor | None = None
) -> Iterator[Progress]:
    """Do what is not done of each, one after the other; here, or where an executor has it done."""
    executor = executor or Serial()
    planned = [(work, work.tasks()) for work in works]
    total, done, resumed = sum(task.size for _, tasks in planned for task in tasks), 0, 0
    yield Progress(label, 0, total, unit)
    for work, tasks in planned:
        for _, already_done, entry in executor.run(tasks, work.manifest, work.opened):
            done += entry.rows
            resumed += entry.rows if already_done else 0
            yield Progress(label, done, total, unit, {"of": work.title}, resumed)
