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
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from lcm_distill.config import Config
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors.ranks import Ranks, launched_ranks
from lcm_distill.pipeline.executors.work import own_gpu

PATIENCE = timedelta(hours=12)
"""How long a rank waits for another one, which may be preparing images or drawing them for a validation."""
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
        UserError: ranks were launched without an address to meet at, or not each with a GPU of its own.
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
    """The configured device, or this rank's of the GPUs where there are several ranks."""
    if ranks.world == 1:
        return resolve_device(name)
    if name.startswith("cuda:"):
        raise UserError(
            f"device = {name!r} is one GPU, and {ranks.world} ranks were launched, which need one each: set "
            "device=cuda, and choose the GPUs by CUDA_VISIBLE_DEVICES"
        )
    return resolve_device(own_gpu(ranks.local_rank, name) or name)


def _initialise(ranks: Ranks, device: torch.device) -> None:
    # Checkpoints and agreements travel over gloo, gradients on GPUs over NCCL.
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    options: dict[str, Any] = {"rank": ranks.rank, "world_size": ranks.world, "timeout": PATIENCE}
    if ranks.world == 1:
        options["store"] = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    else:
        options["store"] = _meet(ranks)
        if device.type == "cuda":
            refuse_shared_gpus(options["store"], ranks, str(torch.cuda.get_device_properties(device).uuid))
            options["device_id"] = device  # NCCL connects here and not in the first step, and a barrier knows its GPU
    dist.init_process_group(backend, **options)


def _meet(ranks: Ranks) -> Store:
    """What ranks exchange addresses by; the first rank serves it."""
    if absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UserError(
            f"{ranks.world} ranks were launched without {' and '.join(absent)}: start training with torchrun, or set "
            "them to the first rank's address and a free port"
        )
    store, _, _ = next(rendezvous("env://", ranks.rank, ranks.world, timeout=PATIENCE))
    store.set_timeout(PATIENCE)
    return store


def refuse_shared_gpus(store: Store, ranks: Ranks, gpu: str) -> None:
    """Nothing, if no other rank has this rank's GPU: two ranks on one would wait for each other for ever.

    Args:
        gpu: its UUID.

    Raises:
        UserError: two ranks have the same one; all ranks raise it.
    """
    store.set(f"gpu of rank {ranks.rank}", gpu)
    gpus = set(store.multi_get([f"gpu of rank {rank}" for rank in range(ranks.world)]))
    store.set(f"rank {ranks.rank} knows", "")
    if ranks.leads:  # and serves the store until the others have read it
        store.wait([f"rank {rank} knows" for rank in range(ranks.world)])
    if len(gpus) < ranks.world:
        raise UserError(
            f"{ranks.world} ranks were launched for {len(gpus)} GPUs: start one rank a GPU, such as `torchrun "
            f"--nproc-per-node {len(gpus)}` on one machine"
        )
