"""Distributing tasks over workers that may die: what one leaves undone is given to others."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Protocol

from lcm_distill.core.errors import UserError, WorkError
from lcm_distill.pipeline.executors.heartbeats import remove_dead_workers
from lcm_distill.pipeline.executors.interface import Commit
from lcm_distill.pipeline.executors.runner import split
from lcm_distill.pipeline.manifest import Manifest, part_name
from lcm_distill.pipeline.task import Task

ATTEMPTS = 3
"""A task is given up once this many workers have died or failed while working on it."""
CHUNKS_PER_WORKER = 8
"""Tasks are handed out in this many chunks per worker, so that workers finish at about the same time."""
LONGEST_CHUNK = 64
POLL_SECONDS = 0.5

log = logging.getLogger(__name__)


class Worker(Protocol):
    """Runs one chunk of tasks at a time in another process, and commits each task itself."""

    def submit(self, tasks: Sequence[Task]) -> Future[UserError | None]:
        """Start a chunk; the future has the result of `TaskRunner.run`, and fails if the worker fails or dies."""
        ...

    def stop(self) -> None:
        """End at once, whatever is running."""
        ...


@dataclass
class _Slot:
    """A worker, which may be replaced, and the chunk it runs."""

    number: int
    worker: Worker | None = None
    chunk: Sequence[Task] = ()
    result: Future[UserError | None] | None = None


def chunks(tasks: Sequence[Task], workers: int) -> list[Sequence[Task]]:
    """Consecutive tasks, which read the same archives, in enough chunks to keep all workers busy."""
    size = max(1, min(LONGEST_CHUNK, -(-len(tasks) // (workers * CHUNKS_PER_WORKER))))
    return [tasks[start : start + size] for start in range(0, len(tasks), size)]


def dispatch(
    tasks: Sequence[Task], manifest: Manifest, start_worker: Callable[[int], Worker], workers: int
) -> Iterator[Commit]:
    """Run tasks on several workers.

    Args:
        start_worker: starts the worker of a slot, counted from 0; called again when one has died.

    Yields:
        as `Executor.run` does.

    Raises:
        WorkError: tasks were given up; all others are committed.
        UserError: a worker met an error that others would meet as well.
    """
    done, pending = split(tasks, manifest)
    yield from done
    remove_dead_workers(manifest.storage)
    if not pending:
        return
    manifest.drop(task.name for task in pending)
    dispatcher = _Dispatcher(pending, manifest, start_worker, workers)
    try:
        yield from dispatcher.run()
    finally:
        dispatcher.stop()
    if dispatcher.given_up:
        name, reason = next(iter(dispatcher.given_up.items()))
        raise WorkError(
            f"{len(dispatcher.given_up)} of {len(tasks)} tasks failed {ATTEMPTS} times, such as {name} ({reason}); the "
            "others are done: the same command tries these again"
        )
    remove_dead_workers(manifest.storage)  # others have done the work of those that died


class _Dispatcher:
    def __init__(
        self, tasks: Sequence[Task], manifest: Manifest, start_worker: Callable[[int], Worker], workers: int
    ) -> None:
        self.manifest, self.start_worker = manifest, start_worker
        self.queue = deque(chunks(tasks, workers))
        self.slots = [_Slot(number) for number in range(min(workers, len(self.queue)))]
        self.pending = {task.name: task for task in tasks}
        self.failures = Counter[str]()
        self.given_up: dict[str, str] = {}

    def run(self) -> Iterator[Commit]:
        """Tasks as they are committed, until all are committed or given up."""
        while self.queue or any(slot.result for slot in self.slots):
            for slot in self.slots:
                if slot.result is None and self.queue:
                    self._begin(slot)
            wait([slot.result for slot in self.slots if slot.result], POLL_SECONDS, FIRST_COMPLETED)
            ended = [slot for slot in self.slots if slot.result and slot.result.done()]
            # After the results: a chunk that has ended has committed all it ever will.
            yield from self._new_commits()
            for slot in ended:
                # A compaction may have merged parts before they were seen.
                yield from self._commits_of([task.name for task in slot.chunk if task.name in self.pending])
                self._end(slot)

    def stop(self) -> None:
        """Stop all workers."""
        for slot in self.slots:
            if slot.worker is not None:
                slot.worker.stop()

    def _begin(self, slot: _Slot) -> None:
        slot.worker = slot.worker or self.start_worker(slot.number)
        slot.chunk = self.queue.popleft()
        slot.result = slot.worker.submit(slot.chunk)

    def _new_commits(self) -> Iterator[Commit]:
        running = [task.name for slot in self.slots for task in slot.chunk if task.name in self.pending]
        committed = self.manifest.storage.sizes([part_name(name) for name in running])
        yield from self._commits_of(name for name in running if part_name(name) in committed)

    def _commits_of(self, names: Iterable[str]) -> Iterator[Commit]:
        for name, entry in self.manifest.entries(names).items():
            yield Commit(self.pending.pop(name), False, entry)

    def _end(self, slot: _Slot) -> None:
        assert slot.result is not None
        error, undone = slot.result.exception(), [task for task in slot.chunk if task.name in self.pending]
        if error is None and (returned := slot.result.result()) is not None:
            raise returned
        slot.result, slot.chunk = None, ()
        if error is None and not undone:
            return
        if slot.worker is not None:
            slot.worker.stop()
            slot.worker = None
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        log.warning("worker %d ended with %d tasks undone: %s", slot.number, len(undone), reason, exc_info=error)
        self._retry(undone, reason)

    def _retry(self, undone: Collection[Task], reason: str) -> None:
        """Queue each task alone, so that one which kills its worker takes no other with it."""
        self.failures.update(task.name for task in undone)
        for task in undone:
            if self.failures[task.name] < ATTEMPTS:
                self.queue.append([task])
            else:
                log.error("task %s is given up: %s", task.name, reason)
                self.given_up[task.name] = reason
                del self.pending[task.name]
