"""Where tasks run: here, one after the other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lcm_distill.pipeline.atomic import WrittenFile
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task

Execute = Callable[[Task], tuple[Sequence[Mapping[str, Any]], WrittenFile | None]]
"""Does a task's work; returns its manifest rows and the file it wrote."""


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
    for task in pending:
        rows, file = execute(task)
        manifest.commit(task, rows, file)
        yield task, False
