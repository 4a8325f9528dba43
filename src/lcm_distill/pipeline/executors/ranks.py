"""The ranks that `torchrun` or `srun` started: each does its share, the first one reports."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lcm_distill.core.errors import WorkError
from lcm_distill.pipeline.executors.board import clear_board, read_board
from lcm_distill.pipeline.executors.dispatch import blocks
from lcm_distill.pipeline.executors.work import Commit, Open, begin, commit_each, own_gpu, split
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task

LOOK_SECONDS = 5.0
"""How often the first rank looks what the others have done."""
PATIENCE_SECONDS = 180.0
"""How long the first rank waits for others who give no sign of life; starting takes them a while."""

LAUNCHERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"))
"""What torchrun and srun call a process's number, how many there are, and its number on this machine."""


@dataclass
class Ranks:
    """Runs this rank's share of the tasks. Ranks meet in the manifest alone: no rank needs another one's address.

    Attributes:
        rank, world: this rank's number, and how many there are. local_rank: its number on this machine.
        patience: seconds for which the first rank waits without a sign of life.
        device: that is configured; `auto` and `cuda` give ranks the GPUs of their machine in turn.
    """

    rank: int
    world: int
    local_rank: int
    patience: float = field(default=PATIENCE_SECONDS)
    device: str = "auto"

    @property
    def leads(self) -> bool:
        """Whether this is the first rank."""
        return self.rank == 0

    def run(self, tasks: Sequence[Task], manifest: Manifest, open_work: Open) -> Iterator[Commit]:
        """Execute and commit this rank's share; the first rank then waits for the others' and tells of it."""
        done, pending = split(tasks, manifest)
        yield from done
        # What was merged is rewritten by one process only.
        merged = manifest.merged_entries().keys() - {task.name for task, _, _ in done}
        names = {task.name for task in share(tasks, self.rank, self.world)}
        mine = [task for task in pending if (self.leads if task.name in merged else task.name in names)]
        if self.leads and pending:
            clear_board(manifest.storage)
            manifest.drop(merged & {task.name for task in pending})
        others = {task.name: task for task in pending if task not in mine} if self.leads else {}
        looked = time.monotonic()
        device = own_gpu(self.local_rank, self.device)
        for commit in commit_each(begin(open_work, device), mine, manifest) if mine else ():
            yield commit
            if others and time.monotonic() - looked > LOOK_SECONDS:
                yield from _arrived(others, manifest)
                looked = time.monotonic()
        yield from self._wait(others, manifest)

    def _wait(self, others: dict[str, Task], manifest: Manifest) -> Iterator[Commit]:
        """Tasks of other ranks as they are committed.

        Raises:
            WorkError: tasks are left, and nobody seems to be alive who could do them.
        """
        signs, heard = None, time.monotonic()
        while others:
            yield from _arrived(others, manifest)
            now = [(worker.name, worker.beat) for worker in read_board(manifest.storage) if worker.error is None]
            if now != signs:
                signs, heard = now, time.monotonic()
            if others and time.monotonic() - heard > self.patience:
                raise WorkError(
                    f"{len(others)} tasks of other ranks are not done, such as {next(iter(others))}, and no rank has "
                    f"been heard from for {self.patience:.0f} s: the same command does them"
                )
            if others:
                time.sleep(min(LOOK_SECONDS, self.patience / 4))


def share(tasks: Sequence[Task], rank: int, world: int) -> list[Task]:
    """A rank's tasks: every `world`-th portion of neighbours. It depends on nothing that differs between ranks."""
    return [task for portion in blocks(tasks, world)[rank::world] for task in portion]


def launched_ranks(environment: Mapping[str, str] = os.environ) -> Ranks | None:
    """The ranks this process belongs to, if a launcher started more than one."""
    for rank, world, local_rank in LAUNCHERS:
        if int(environment.get(world, "1")) > 1:
            return Ranks(int(environment[rank]), int(environment[world]), int(environment[local_rank]))
    return None


def _arrived(others: dict[str, Task], manifest: Manifest) -> Iterator[Commit]:
    for name, entry in manifest.done(list(others.values())).items():
        yield Commit(others.pop(name), False, entry)
