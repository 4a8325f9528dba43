"""Heartbeats: a small file for each worker, rewritten every few seconds while it is alive.

Results do not depend on them. `lcm status` reads from them which tasks are running and which failed, and a rank that
waits for others whether they are alive.
"""

import json
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from pydantic import TypeAdapter

from lcm_distill.core.child_process import is_running
from lcm_distill.core.errors import StorageError
from lcm_distill.pipeline.storage import Storage
from lcm_distill.pipeline.task import Task

log = logging.getLogger(__name__)

FOLDER = "workers"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A worker without a heartbeat for this long counts as dead."""


@dataclass(frozen=True)
class WorkerStatus:
    """The last heartbeat of a worker.

    Attributes:
        name: host and process id.
        tasks: names of the tasks it is working on.
        beat: time of the heartbeat, in seconds since 1970 by the worker's clock.
        error: the traceback of the exception that it ended with, if it did.
    """

    name: str
    tasks: list[str]
    beat: float
    error: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the heartbeat is recent, and its process has not ended, where that can be known."""
        return self.error is None and time.time() - self.beat < STALE_SECONDS and not self._has_ended()

    def _has_ended(self) -> bool:
        host, _, process = self.name.rpartition("-")
        return host == socket.gethostname() and process.isdecimal() and not is_running(int(process))


_STATUS = TypeAdapter(WorkerStatus)


def read_workers(storage: Storage) -> list[WorkerStatus]:
    """The workers that are running, died or failed."""
    workers: list[WorkerStatus] = []
    for file in storage.listing(FOLDER):
        try:
            workers.append(_STATUS.validate_json(storage.read(file)))
        except (FileNotFoundError, ValueError):
            continue  # it has just ended, or its last words are damaged
    return workers


def remove_dead_workers(storage: Storage) -> None:
    """Delete the heartbeats of workers that are not alive."""
    for worker in read_workers(storage):
        if not worker.alive:
            storage.remove(_file(worker.name))


def worker_name() -> str:
    """The name of this process in heartbeats and log files."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Heartbeat:
    """The heartbeat file of this process, and the tasks that it lists."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self._tasks, self._lock = storage, list[str](), threading.Lock()

    def track(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """The tasks; each is listed as running from when it is taken from the iterator."""
        for task in tasks:
            with self._lock:
                self._tasks.append(task.name)
            self.write()
            yield task

    def finish(self, task: Task) -> None:
        """Remove a committed task from the list; the file shows it at the next heartbeat."""
        with self._lock:
            self._tasks.remove(task.name)

    def write(self, error: str | None = None) -> None:
        """Rewrite the file."""
        with self._lock:
            worker = WorkerStatus(worker_name(), list(self._tasks), time.time(), error)
            self._storage.put(_file(worker.name), [json.dumps(asdict(worker)).encode()])

    def remove(self) -> None:
        """Delete the file."""
        self._storage.remove(_file(worker_name()))


@contextmanager
def heartbeat(storage: Storage) -> Generator[Heartbeat]:
    """Write heartbeats while the block runs. The file stays, with the traceback, if the block raises an exception."""
    own, stop = Heartbeat(storage), threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            _try_to_write(own)

    own.write()
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield own
    except Exception:
        _stop(stop, thread)
        _try_to_write(own, traceback.format_exc())
        raise
    except BaseException:  # interrupted, or the generator that runs tasks was closed
        _stop(stop, thread)
        own.remove()
        raise
    _stop(stop, thread)
    own.remove()


def _try_to_write(own: Heartbeat, error: str | None = None) -> None:
    """Write a heartbeat, which nothing depends on: where storage refuses it, the work meets the same error."""
    try:
        own.write(error)
    except (OSError, StorageError) as refused:
        log.warning("no heartbeat: %s", refused)


def _stop(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    thread.join()


def _file(worker: str) -> str:
    return str(PurePosixPath(FOLDER) / f"{worker}.json")
