"""The processes that train together: one alone, or the ranks that `torchrun` or `srun` started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lcm_distill.config import Config
from lcm_distill.device import resolve_device
from lcm_distill.errors import UserError
from lcm_distill.pipeline.executors.ranks import Ranks, launched_ranks
from lcm_distill.pipeline.executors.work import count_gpus

PATIENCE = timedelta(hours=12)
"""How long a rank waits for another one, which may be preparing pictures or drawing them for a validation."""
ALONE = Ranks(rank=0, world=1, local_rank=0)


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank, size: its number, and how many there are.
        device: where it computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the first rank, which writes and tells."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Until every rank has come here."""
        if self.size > 1:
            dist.barrier()


def alone(config: Config) -> World:
    """This process by itself, whatever started it."""
    return World(0, 1, resolve_device(config.device))


@contextmanager
def join(config: Config) -> Iterator[World]:
    """The world this process belongs to.

    A process alone on a CPU needs no process group; sharding and checkpoints in the background do.

    Raises:
        UserError: ranks were launched without an address to meet at.
    """
    ranks = launched_ranks() or ALONE
    device = _own_device(config.device, ranks)
    if ranks.world == 1 and device.type == "cpu" and config.engine.sharding == "none":
        yield World(0, 1, device)
        return
    _initialise(ranks, device)
    try:
        yield World(ranks.rank, ranks.world, device)
    finally:
        dist.destroy_process_group()


def _own_device(name: str, ranks: Ranks) -> torch.device:
    device = resolve_device(name)
    if device.type == "cuda":
        if ranks.world > 1 and device.index is None:
            device = torch.device("cuda", ranks.local_rank % max(1, count_gpus()))
        torch.cuda.set_device(device)
    return device


def _initialise(ranks: Ranks, device: torch.device) -> None:
    # Checkpoints and agreements travel over gloo, gradients on GPUs over NCCL.
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    options: dict[str, Any] = {"rank": ranks.rank, "world_size": ranks.world, "timeout": PATIENCE}
    if ranks.world == 1:
        options["store"] = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    elif absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UserError(
            f"{ranks.world} ranks were launched without {' and '.join(absent)}: start training with torchrun, or set "
            "them to the first rank's address and a free port"
        )
    dist.init_process_group(backend, **options)
