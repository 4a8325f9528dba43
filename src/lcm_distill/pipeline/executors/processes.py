"""One process for each GPU of this machine, or any number of them."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from lcm_distill.core.child_process import follow_parent
from lcm_distill.core.errors import UserError
from lcm_distill.core.logs import log_settings
from lcm_distill.pipeline.executors.devices import worker_gpu
from lcm_distill.pipeline.executors.dispatch import dispatch
from lcm_distill.pipeline.executors.interface import Commit, Open
from lcm_distill.pipeline.executors.runner import TaskRunner
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task

_runner: TaskRunner | None = None
"""In a worker process: what runs its tasks."""


@dataclass(frozen=True)
class Processes:
    """Runs tasks in processes of their own.

    Attributes:
        workers: number of processes.
        device: the configured device; with `auto` and `cuda` the processes share all GPUs.
    """

    workers: int
    device: str = "auto"
    leads = True

    def run(self, tasks: Sequence[Task], manifest: Manifest, open_work: Open) -> Iterator[Commit]:
        """Execute and commit what is not committed yet; a process that dies is replaced."""
        return dispatch(tasks, manifest, partial(ProcessWorker, open_work, manifest, self.device), self.workers)


class ProcessWorker:
    """A process that runs chunks of tasks.

    Args:
        slot: number of the worker, counted from 0.
    """

    def __init__(self, open_work: Open, manifest: Manifest, device: str, slot: int) -> None:
        runner = TaskRunner(open_work, manifest, worker_gpu(slot, device), log_settings())
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _initialise, (runner,))
        self._process = self._pool.submit(os.getpid)

    def submit(self, tasks: Sequence[Task]) -> Future[UserError | None]:
        """Start a chunk."""
        return self._pool.submit(_run, tasks)

    def stop(self) -> None:
        """Kill the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._process.done() and not self._process.cancelled() and not self._process.exception():
            with suppress(ProcessLookupError):
                os.kill(self._process.result(), signal.SIGKILL)


def _initialise(runner: TaskRunner) -> None:
    global _runner
    _runner = runner
    follow_parent()


def _run(tasks: Sequence[Task]) -> UserError | None:
    assert _runner is not None
    return _runner.run(tasks)
