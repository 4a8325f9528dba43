"""Processes that train, alone or together as a launcher would start them, and may be killed.

They are forked off a server that has imported everything, so that a life costs no seconds.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from typing import Any

from torch import Tensor

_LIVES = multiprocessing.get_context("forkserver")
_LIVES.set_forkserver_preload(["lcm_distill.stages.distill", "torch.distributed.fsdp", "tests.ranks"])


def start(ranks: int, work: Callable[..., Any], *arguments: Any) -> list[BaseProcess]:
    """So many ranks that each do `work`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lives: list[BaseProcess] = [
        _LIVES.Process(target=_live, args=(rank, ranks, port, work, arguments)) for rank in range(ranks)
    ]
    for life in lives:
        life.start()
    return lives


def finish(lives: list[BaseProcess]) -> list[int | None]:
    """The exit codes of ranks, once all have ended."""
    for life in lives:
        life.join()
    return [life.exitcode for life in lives]


def _live(rank: int, ranks: int, port: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    work(*arguments)


def assert_same_weights(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Each tensor's distance is a thousandth of its size: Adam turns rounding alone into a step, entry by entry."""
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).norm() <= 1e-3 * tensor.norm(), name
