"""Where tasks run: here, one after the other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lcm_distill.pipeline.atomic import WrittenFile
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task

Outcome = tuple[Task, Sequence[Mapping[str, Any]], WrittenFile | None]
"""A finished task, its manifest rows and the file it wrote."""

Execute = Callable[[Sequence[Task]], Iterator[Outcome]]
"""Does the work of tasks, in whatever order suits it; tells of each when its file is written."""


def run_serially(tasks: Sequence[Task], manifest: Manifest, execute: Execute) -> Iterator[tuple[Task, bool]]:
    """Execute and commit every task that has no valid part yet.

    Yields:
        each task once it is committed, and whether that was already so before this call. Those come first.
    """
    pending: list[Task] = []
    done = manifest.done(tasks)
    for task in tasks:
        if task.name in done:
            yield task, True
        else:
            pending.append(task)
    for task, rows, file in execute(pending):
        manifest.commit(task, rows, file)
        yield task, False
