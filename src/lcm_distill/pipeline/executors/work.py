"""What every executor does with tasks, wherever it runs them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors.board import at_work
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.parts import Entry
from lcm_distill.pipeline.storage import WrittenFile
from lcm_distill.pipeline.task import Task

Outcome = tuple[Task, Sequence[Mapping[str, Any]], WrittenFile | None]
"""A finished task, its manifest rows and the file it wrote."""

Execute = Callable[[Iterable[Task]], Iterator[Outcome]]
"""Does the work of tasks, in whatever order suits it; tells of each when its file is written. A task is under way from
when it is drawn from the iterable."""

Open = Callable[[str | None], Execute]
"""Makes ready to work on a device; None leaves the choice to the configuration. Processes send it to each other."""


class Commit(NamedTuple):
    """A committed task.

    Attributes:
        resumed: whether it was committed before this call.
        entry: what its footer says of it.
    """

    task: Task
    resumed: bool
    entry: Entry


class Executor(Protocol):
    """Runs tasks and commits them.

    Attributes:
        leads: whether this process prepares what others wait for, and reports. Only ranks other than the first do not.
    """

    @property
    def leads(self) -> bool: ...

    def run(self, tasks: Sequence[Task], manifest: Manifest, open_work: Open) -> Iterator[Commit]:
        """Execute and commit every task that has no valid commit yet.

        Yields:
            each task once it is committed; those that were so before this call come first.

        Raises:
            WorkError: tasks failed again and again; all others are committed.
        """
        ...


def split(tasks: Sequence[Task], manifest: Manifest) -> tuple[list[Commit], list[Task]]:
    """Tasks that are done, and those that are not."""
    done = manifest.done(tasks)
    commits = [Commit(task, True, done[task.name]) for task in tasks if task.name in done]
    return commits, [task for task in tasks if task.name not in done]


def commit_each(execute: Execute, tasks: Sequence[Task], manifest: Manifest) -> Iterator[Commit]:
    """Execute tasks that have no commit; each is yielded once it has."""
    with at_work(manifest.storage) as hands:
        for task, rows, file in execute(hands.take(tasks)):
            entry = manifest.commit(task, rows, file)
            hands.lay_down(task)
            yield Commit(task, False, entry)


class Blocks:
    """Runs blocks of tasks in a worker process; what the work needs is opened for the first one and kept."""

    def __init__(self, open_work: Open, manifest: Manifest, device: str | None) -> None:
        self._open, self._manifest, self._device = open_work, manifest, device
        self._execute: Execute | None = None

    def run(self, tasks: Sequence[Task]) -> UserError | None:
        """Execute and commit tasks.

        Returns:
            an error that every other worker would meet as well. It is no exception here because what carries
            exceptions between processes wraps them.
        """
        try:
            self._execute = self._execute or begin(self._open, self._device)
            for _ in commit_each(self._execute, tasks, self._manifest):
                pass
        except UserError as error:
            return error
        return None


def begin(open_work: Open, device: str | None) -> Execute:
    """Make ready to work on a device, which is the current one from then on; None leaves it to the configuration."""
    if device:
        from lcm_distill.core.device import resolve_device

        resolve_device(device)
    return open_work(device)


def own_gpu(number: int, device: str) -> str | None:
    """The GPU of the worker or rank of this machine with a number; None where the configured device is all there is."""
    gpus = spread_over(device)
    return f"cuda:{number % gpus}" if gpus else None


def spread_over(device: str) -> int:
    """How many GPUs workers of this machine are spread over; 0 where the configured device is one card or a CPU."""
    return count_gpus() if device in ("auto", "cuda") else 0


def count_gpus() -> int:
    """CUDA devices of this machine that this process may use."""
    import torch

    return torch.cuda.device_count()


def count_threads() -> int:
    """Threads that an operation on this machine's processors is spread over."""
    import torch

    return torch.get_num_threads()
