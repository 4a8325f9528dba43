"""Tasks to workers elsewhere, who may die: what they left undone is given to others."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Protocol

from lcm_distill.core.errors import UserError, WorkError
from lcm_distill.pipeline.executors.board import clear_board
from lcm_distill.pipeline.executors.work import Commit, split
from lcm_distill.pipeline.manifest import Manifest, part_name
from lcm_distill.pipeline.task import Task

ATTEMPTS = 3
"""A task that was in hand when this many workers died or failed is given up."""
BLOCKS_A_WORKER = 8
"""Work is handed out in this many portions a worker, so that none waits long for the others at the end."""
LONGEST_BLOCK = 64
POLL_SECONDS = 0.5


class Worker(Protocol):
    """Runs one block of tasks at a time, somewhere else, and commits each task itself."""

    def submit(self, tasks: Sequence[Task]) -> Future[UserError | None]:
        """Begin a block; the future gives what `Blocks.run` does, and fails if the worker does or dies."""
        ...

    def stop(self) -> None:
        """End at once, whatever is in hand."""
        ...


@dataclass
class _Seat:
    """A place for a worker, who may be replaced."""

    number: int
    worker: Worker | None = None
    block: Sequence[Task] = ()
    result: Future[UserError | None] | None = None


def blocks(tasks: Sequence[Task], workers: int) -> list[Sequence[Task]]:
    """Tasks in portions of neighbours, which read the same archives, as many as keep all workers busy."""
    size = max(1, min(LONGEST_BLOCK, -(-len(tasks) // (workers * BLOCKS_A_WORKER))))
    return [tasks[start : start + size] for start in range(0, len(tasks), size)]


def dispatch(tasks: Sequence[Task], manifest: Manifest, hire: Callable[[int], Worker], seats: int) -> Iterator[Commit]:
    """Run tasks on as many workers as there are seats.

    Args:
        hire: gives the worker of a seat, counted from 0; asked again when one has died.

    Yields:
        as `Executor.run` does.

    Raises:
        WorkError: tasks were given up; all others are committed.
        UserError: a worker met an error that others would meet as well.
    """
    done, pending = split(tasks, manifest)
    yield from done
    if not pending:
        return
    clear_board(manifest.storage)
    manifest.drop(task.name for task in pending)
    dispatcher = _Dispatcher(pending, manifest, hire, seats)
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


class _Dispatcher:
    def __init__(self, tasks: Sequence[Task], manifest: Manifest, hire: Callable[[int], Worker], seats: int) -> None:
        self.manifest, self.hire = manifest, hire
        self.queue = deque(blocks(tasks, seats))
        self.seats = [_Seat(number) for number in range(min(seats, len(self.queue)))]
        self.waiting = {task.name: task for task in tasks}
        self.deaths = Counter[str]()
        self.given_up: dict[str, str] = {}

    def run(self) -> Iterator[Commit]:
        """Tasks as they are committed, until none is left that could be."""
        while self.queue or any(seat.result for seat in self.seats):
            for seat in self.seats:
                if seat.result is None and self.queue:
                    self._begin(seat)
            wait([seat.result for seat in self.seats if seat.result], POLL_SECONDS, FIRST_COMPLETED)
            ended = [seat for seat in self.seats if seat.result and seat.result.done()]
            # Looked at after the results: a block that has ended has committed all it ever will.
            yield from self._committed()
            for seat in ended:
                # A compaction may have merged parts before they were seen.
                yield from self._tell([task.name for task in seat.block if task.name in self.waiting])
                self._end(seat)

    def stop(self) -> None:
        """Dismiss everyone."""
        for seat in self.seats:
            if seat.worker is not None:
                seat.worker.stop()

    def _begin(self, seat: _Seat) -> None:
        seat.worker = seat.worker or self.hire(seat.number)
        seat.block = self.queue.popleft()
        seat.result = seat.worker.submit(seat.block)

    def _committed(self) -> Iterator[Commit]:
        in_hand = [task.name for seat in self.seats for task in seat.block if task.name in self.waiting]
        there = self.manifest.storage.sizes([part_name(name) for name in in_hand])
        yield from self._tell(name for name in in_hand if part_name(name) in there)

    def _tell(self, names: Iterable[str]) -> Iterator[Commit]:
        for name, entry in self.manifest.entries(names).items():
            yield Commit(self.waiting.pop(name), False, entry)

    def _end(self, seat: _Seat) -> None:
        assert seat.result is not None
        error, undone = seat.result.exception(), [task for task in seat.block if task.name in self.waiting]
        if error is None and (told := seat.result.result()) is not None:
            raise told
        seat.result, seat.block = None, ()
        if error is None and not undone:
            return
        if seat.worker is not None:
            seat.worker.stop()
            seat.worker = None
        self._retry(undone, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def _retry(self, undone: Collection[Task], reason: str) -> None:
        """Alone, so that a task which kills its worker takes no other with it."""
        self.deaths.update(task.name for task in undone)
        for task in undone:
            if self.deaths[task.name] < ATTEMPTS:
                self.queue.append([task])
            else:
                self.given_up[task.name] = reason
                del self.waiting[task.name]
