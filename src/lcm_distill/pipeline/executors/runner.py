"""Executing and committing tasks in one process."""

import logging
from collections.abc import Iterator, Sequence

from lcm_distill.core.errors import StorageError, UserError
from lcm_distill.core.io_errors import UNREACHABLE, describe
from lcm_distill.core.logs import LogSettings
from lcm_distill.pipeline.executors.heartbeats import heartbeat, worker_name
from lcm_distill.pipeline.executors.interface import Commit, Execute, Open
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task

log = logging.getLogger(__name__)


def split(tasks: Sequence[Task], manifest: Manifest) -> tuple[list[Commit], list[Task]]:
    """The tasks that are committed already, and those that are pending."""
    done = manifest.done(tasks)
    commits = [Commit(task, True, done[task.name]) for task in tasks if task.name in done]
    pending = [task for task in tasks if task.name not in done]
    log.info("%d of %d tasks are committed, %d pending", len(commits), len(tasks), len(pending))
    return commits, pending


def commit_each(execute: Execute, tasks: Sequence[Task], manifest: Manifest) -> Iterator[Commit]:
    """Execute tasks that have no commit; yields each once it has."""
    with heartbeat(manifest.storage) as own:
        for task, rows, file in execute(own.track(tasks)):
            entry = manifest.commit(task, rows, file)
            own.finish(task)
            log.debug("committed %s: %d rows, %d quarantined", task.name, entry.rows, entry.quarantined)
            yield Commit(task, False, entry)


class TaskRunner:
    """Runs chunks of tasks in a worker process. The work is opened for the first chunk and kept for the next ones.

    Args:
        logs: settings of the process that starts the worker; None if it does not log.
    """

    def __init__(
        self, open_work: Open, manifest: Manifest, device: str | None, logs: LogSettings | None = None
    ) -> None:
        self._open, self._manifest, self._device, self._logs = open_work, manifest, device, logs
        self._execute: Execute | None = None

    def run(self, tasks: Sequence[Task]) -> UserError | None:
        """Execute and commit tasks.

        Returns:
            a UserError, which every other worker would meet as well. It is returned because what transports exceptions
            between processes wraps those that are raised.

        Raises:
            Exception: whatever the work raises; its traceback is in the worker's log file.
        """
        try:
            self._execute = self._execute or self._start()
            for _ in commit_each(self._execute, tasks, self._manifest):
                pass
        except UserError as error:
            log.exception("the work cannot be done")
            return error
        except OSError as error:
            log.exception("failure in one of %d tasks from %s on", len(tasks), tasks[0].name)
            if error.errno not in UNREACHABLE:
                raise
            return StorageError(describe(error))
        except Exception:
            log.exception("worker failure in one of %d tasks from %s on", len(tasks), tasks[0].name)
            raise
        return None

    def _start(self) -> Execute:
        if self._logs is not None:
            self._logs.start(worker_name())
        log.info("worker %s starts on device %s", worker_name(), self._device or "of the configuration")
        return open_on(self._open, self._device)


def open_on(open_work: Open, device: str | None) -> Execute:
    """Prepare the work on a device, which becomes the current one; None leaves it to the configuration."""
    if device:
        from lcm_distill.core.device import resolve_device

        resolve_device(device)
    return open_work(device)
