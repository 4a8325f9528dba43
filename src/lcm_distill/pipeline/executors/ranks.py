"""The ranks that `torchrun` or `srun` started: each runs its share of the tasks, and the first one reports."""

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lcm_distill.core.errors import WorkError
from lcm_distill.core.words import counted
from lcm_distill.pipeline.executors.devices import worker_gpu
from lcm_distill.pipeline.executors.dispatch import chunks
from lcm_distill.pipeline.executors.heartbeats import read_workers, remove_dead_workers
from lcm_distill.pipeline.executors.interface import Commit, Open
from lcm_distill.pipeline.executors.runner import commit_each, open_on, split
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.task import Task

POLL_SECONDS = 5.0
"""How often the first rank checks what the others have committed."""
PATIENCE_SECONDS = 180.0
"""How long the first rank waits for others without a heartbeat; starting takes them a while."""

LAUNCHERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"))
"""Environment variables of torchrun and srun: rank, number of ranks, and rank on this machine."""
LAUNCH = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID")
"""Environment variables that the ranks of one launch share, and two launches do not."""


@dataclass
class Ranks:
    """Runs this rank's share of the tasks. Ranks share the manifest alone and do not connect to each other.

    Attributes:
        rank, world: this rank's number, and the number of ranks. local_rank: its number on this machine.
        launch: what tells their launch from another one.
        patience: seconds that the first rank waits without a heartbeat.
        device: the configured device; with `auto` and `cuda` ranks share the GPUs of their machine.
    """

    rank: int
    world: int
    local_rank: int
    patience: float = field(default=PATIENCE_SECONDS)
    device: str = "auto"
    launch: str = "ranks"

    @property
    def leads(self) -> bool:
        """Whether this is the first rank."""
        return self.rank == 0

    def run(self, tasks: Sequence[Task], manifest: Manifest, open_work: Open) -> Iterator[Commit]:
        """Execute and commit this rank's share; the first rank then waits for the others and reports their commits."""
        done, pending = split(tasks, manifest)
        yield from done
        # Merged files are rewritten by one process only.
        merged = manifest.merged_entries().keys() - {task.name for task, _, _ in done}
        names = {task.name for task in share(tasks, self.rank, self.world)}
        mine = [task for task in pending if (self.leads if task.name in merged else task.name in names)]
        if self.leads:
            remove_dead_workers(manifest.storage)
        if self.leads and pending:
            manifest.drop(merged & {task.name for task in pending})
        others = {task.name: task for task in pending if task not in mine} if self.leads else {}
        checked = time.monotonic()
        device = worker_gpu(self.local_rank, self.device)
        for commit in commit_each(open_on(open_work, device), mine, manifest) if mine else ():
            yield commit
            if others and time.monotonic() - checked > POLL_SECONDS:
                yield from _newly_committed(others, manifest)
                checked = time.monotonic()
        yield from self._wait(others, manifest)

    def _wait(self, others: dict[str, Task], manifest: Manifest) -> Iterator[Commit]:
        """Tasks of other ranks as they are committed.

        Raises:
            WorkError: tasks are pending, and no other rank is alive.
        """
        heartbeats, last_heartbeat = None, time.monotonic()
        while others:
            yield from _newly_committed(others, manifest)
            now = [(worker.name, worker.beat) for worker in read_workers(manifest.storage) if worker.error is None]
            if now != heartbeats:
                heartbeats, last_heartbeat = now, time.monotonic()
            if others and time.monotonic() - last_heartbeat > self.patience:
                raise WorkError(
                    f"{counted(len(others), 'task of other ranks is', 'tasks of other ranks are')} not done, such as "
                    f"{next(iter(others))}, and no rank has been heard from for {self.patience:.0f} s: "
                    "the same command does what is left"
                )
            if others:
                time.sleep(min(POLL_SECONDS, self.patience / 4))


def share(tasks: Sequence[Task], rank: int, world: int) -> list[Task]:
    """A rank's tasks: every `world`-th chunk. All ranks compute the same division."""
    return [task for chunk in chunks(tasks, world)[rank::world] for task in chunk]


def launched_ranks(environment: Mapping[str, str] = os.environ) -> Ranks | None:
    """The ranks this process belongs to, if a launcher started more than one."""
    for rank, world, local_rank in LAUNCHERS:
        if int(environment.get(world, "1")) > 1:
            launch = " ".join([*(environment[name] for name in LAUNCH if name in environment), environment[world]])
            return Ranks(
                int(environment[rank]), int(environment[world]), int(environment[local_rank]),
                launch=_on_one_machine(environment, world) + launch,
            )  # fmt: skip
    return None


def _on_one_machine(environment: Mapping[str, str], world: str) -> str:
    """The machine, where torchrun says that all ranks are on it: their rendezvous is then at `localhost`."""
    alone = environment.get("LOCAL_WORLD_SIZE") == environment[world]
    return f"{socket.gethostname()} " if alone else ""


def _newly_committed(others: dict[str, Task], manifest: Manifest) -> Iterator[Commit]:
    """Those of the tasks that are committed by now, which are removed from `others`."""
    for name, entry in manifest.done(list(others.values())).items():
        yield Commit(others.pop(name), False, entry)
