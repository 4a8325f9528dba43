"""A process a GPU, on this machine."""

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
from lcm_distill.pipeline.executors.dispatch import dispatch
from lcm_distill.pipeline.executors.work import Blocks, Commit, Open, own_gpu
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task

_blocks: Blocks | None = None
"""In a worker process: what it runs its blocks with."""


@dataclass(frozen=True)
class Processes:
    """Runs tasks in processes of their own.

    Attributes:
        workers: how many.
        device: that is configured; `auto` and `cuda` give processes the GPUs in turn.
    """

    workers: int
    device: str = "auto"
    leads = True

    def run(self, tasks: Sequence[Task], manifest: Manifest, open_work: Open) -> Iterator[Commit]:
        """Execute and commit what is not done; a process that dies is replaced."""
        return dispatch(tasks, manifest, partial(ProcessWorker, open_work, manifest, self.device), self.workers)


class ProcessWorker:
    """A process that runs blocks."""

    def __init__(self, open_work: Open, manifest: Manifest, device: str, seat: int) -> None:
        blocks = Blocks(open_work, manifest, own_gpu(seat, device))
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin_process, (blocks,))
        self._process = self._pool.submit(os.getpid)

    def submit(self, tasks: Sequence[Task]) -> Future[UserError | None]:
        """Begin a block."""
        return self._pool.submit(_run, tasks)

    def stop(self) -> None:
        """Kill the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._process.done() and not self._process.cancelled() and not self._process.exception():
            with suppress(ProcessLookupError):
                os.kill(self._process.result(), signal.SIGKILL)


def _begin_process(blocks: Blocks) -> None:
    global _blocks
    _blocks = blocks
    follow_parent()


def _run(tasks: Sequence[Task]) -> UserError | None:
    assert _blocks is not None
    return _blocks.run(tasks)
