"""Who works on what, for everyone to see: a file a worker, renewed while it lives.

Nothing of value depends on it. It tells `lcm status` what is running and what failed, and a rank that waits for others
whether they are alive.
"""

import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from lcm_distill.pipeline.storage import Storage
from lcm_distill.pipeline.task import Task

FOLDER = "workers"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""Who has not been heard from for this long is dead."""


@dataclass(frozen=True)
class Worker:
    """What a worker last said of itself.

    Attributes:
        name: host and process.
        tasks: names of those under way.
        beat: when it said so, in seconds since 1970 by its own clock.
        error: the traceback it ended with, if it did.
    """

    name: str
    tasks: list[str]
    beat: float
    error: str | None = None

    @property
    def alive(self) -> bool:
        """Whether it said so lately."""
        return self.error is None and time.time() - self.beat < STALE_SECONDS


def read_board(storage: Storage) -> list[Worker]:
    """Every worker that has not ended in order."""
    workers: list[Worker] = []
    for file in storage.listing(FOLDER):
        try:
            workers.append(Worker(**json.loads(storage.read(file))))
        except FileNotFoundError:
            continue  # it has just ended
    return workers


def clear_board(storage: Storage) -> None:
    """Forget the workers that are no more."""
    for worker in read_board(storage):
        if not worker.alive:
            storage.remove(_file(worker.name))


def own_name() -> str:
    """What this process is called on the board."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Hands:
    """The tasks this process has in hand, and the file that says so."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self._tasks, self._lock = storage, list[str](), threading.Lock()

    def take(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """The tasks, each noted as under way when it is drawn."""
        for task in tasks:
            with self._lock:
                self._tasks.append(task.name)
            self.show()
            yield task

    def lay_down(self, task: Task) -> None:
        """Note that a task is committed; the next beat tells of it."""
        with self._lock:
            self._tasks.remove(task.name)

    def show(self, error: str | None = None) -> None:
        """Write the file anew."""
        with self._lock:
            worker = Worker(own_name(), list(self._tasks), time.time(), error)
            self._storage.put(_file(worker.name), [json.dumps(asdict(worker)).encode()])

    def leave(self) -> None:
        """Remove the file."""
        self._storage.remove(_file(own_name()))


@contextmanager
def at_work(storage: Storage) -> Generator[Hands]:
    """Be on the board; whoever leaves by an error stays on it with the traceback."""
    hands, stop = Hands(storage), threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            hands.show()

    hands.show()
    heart = threading.Thread(target=beat, name="heartbeat", daemon=True)
    heart.start()
    try:
        yield hands
    except Exception:
        _stop(stop, heart)
        hands.show(traceback.format_exc())
        raise
    except BaseException:  # interrupted, or nobody wants more
        _stop(stop, heart)
        hands.leave()
        raise
    _stop(stop, heart)
    hands.leave()


def _stop(stop: threading.Event, heart: threading.Thread) -> None:
    stop.set()
    heart.join()


def _file(worker: str) -> str:
    return str(PurePosixPath(FOLDER) / f"{worker}.json")
