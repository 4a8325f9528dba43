"""The processes that train together: a single one, or the ranks that `torchrun` or `srun` launched."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous  # pyright: ignore[reportUnknownVariableType]

from lcm_distill.config import EngineConfig
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.words import counted
from lcm_distill.pipeline.executors.devices import worker_gpu
from lcm_distill.pipeline.executors.ranks import Ranks, launched_ranks

TIMEOUT = timedelta(hours=12)
"""How long a rank waits for another one, which may be decoding images or generating them for a validation."""
SINGLE = Ranks(rank=0, world=1, local_rank=0)


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: its number. size: the number of processes.
        device: where it computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and reports progress."""
        return self.rank == 0

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def barrier(self) -> None:
        """Wait until every rank has made this call."""
        if self.size > 1:
            dist.barrier()


def single_process(device: str) -> World:
    """This process as the only one, whatever launched it.

    Args:
        device: as `resolve_device` takes it.
    """
    return World(0, 1, resolve_device(device))


@contextmanager
def init_world(device: str, engine: EngineConfig) -> Generator[World]:
    """The world that this process belongs to, with a process group where one is needed.

    A single process on a CPU or on Metal needs none, unless weights are sharded; on a GPU, checkpoints written in the
    background need one.

    Raises:
        UserError: ranks were launched without a rendezvous address, or not each with a GPU of its own, or on Metal.
    """
    ranks = launched_ranks() or SINGLE
    own_device = _own_device(device, ranks)
    if own_device.type == "mps" and (ranks.world > 1 or engine.sharding != "none"):
        raise UserError(
            "device = 'mps' trains in one process on whole weights: start one rank, with engine.sharding='none'"
        )
    if ranks.world == 1 and own_device.type != "cuda" and engine.sharding == "none":
        yield World(0, 1, own_device)
        return
    _init_process_group(ranks, own_device)
    try:
        yield World(ranks.rank, ranks.world, own_device)
    finally:
        dist.destroy_process_group()


def _own_device(name: str, ranks: Ranks) -> torch.device:
    """The configured device of a single process; with several ranks, this rank's GPU."""
    if ranks.world == 1:
        return resolve_device(name)
    if name.startswith("cuda:"):
        raise UserError(
            f"device = {name!r} is one GPU, and {ranks.world} ranks were launched, which need one each: set "
            "device=cuda, and choose the GPUs by CUDA_VISIBLE_DEVICES"
        )
    return resolve_device(worker_gpu(ranks.local_rank, name) or name)


def _init_process_group(ranks: Ranks, device: torch.device) -> None:
    # Checkpoints and small objects go over gloo, gradients on GPUs over NCCL.
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    options: dict[str, Any] = {"rank": ranks.rank, "world_size": ranks.world, "timeout": TIMEOUT}
    if ranks.world == 1:
        options["store"] = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    else:
        options["store"] = _rendezvous(ranks)
        if device.type == "cuda":
            properties = cast(Any, torch.cuda.get_device_properties(device))  # pyright: ignore[reportUnknownMemberType]
            refuse_shared_gpus(options["store"], ranks, str(properties.uuid))
            # NCCL then connects here and not in the first step, and barriers know their GPU.
            options["device_id"] = device
    dist.init_process_group(backend, **options)


def _rendezvous(ranks: Ranks) -> Store:
    """The store through which ranks exchange addresses; rank 0 serves it."""
    if absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UserError(
            f"{ranks.world} ranks were launched without {' and '.join(absent)}: start training with torchrun, or set "
            "them to the first rank's address and a free port"
        )
    store, _, _ = next(rendezvous("env://", ranks.rank, ranks.world, timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    return store


def refuse_shared_gpus(store: Store, ranks: Ranks, gpu: str) -> None:
    """Check that no two ranks have the same GPU, where NCCL would block forever.

    Args:
        gpu: UUID of this rank's GPU.

    Raises:
        UserError: two ranks have the same one; all ranks raise it.
    """
    store.set(f"gpu of rank {ranks.rank}", gpu)
    gpus = set(store.multi_get([f"gpu of rank {rank}" for rank in range(ranks.world)]))
    store.set(f"rank {ranks.rank} knows", "")
    if ranks.rank == 0:  # it serves the store until the others have read it
        store.wait([f"rank {rank} knows" for rank in range(ranks.world)])
    if len(gpus) < ranks.world:
        raise UserError(
            f"{ranks.world} ranks were launched for {counted(len(gpus), 'GPU')}: start one rank a GPU, such as "
            f"`torchrun --nproc-per-node {len(gpus)}` on one machine"
        )
