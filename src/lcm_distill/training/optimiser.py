"""AdamW over the networks that are trained, its moments in float32 or in 8 bit."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lcm_distill.config import OptimiserConfig
from lcm_distill.core.errors import UserError

BLOCK = 256
"""Values that share a scale in 8 bit."""
MOMENT_BYTES = {"float32": 8.0, "8bit": 2 * (1 + 4 / BLOCK)}
"""Of both moments, to a parameter."""


def build_optimiser(shares: Mapping[nn.Module, float], settings: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW with a group for each network; `set_rate` gives it a learning rate.

    Args:
        shares: networks, each with the share of the learning rate that it takes.

    Raises:
        UserError: moments shall be held in 8 bit, and torchao is not installed.
    """
    groups = [{"params": list(network.parameters()), "share": share} for network, share in shares.items()]
    common: dict[str, Any] = {"lr": 0.0, "betas": settings.betas, "weight_decay": settings.weight_decay}
    if settings.moments == "float32":
        on_gpu = all(parameter.is_cuda for network in shares for parameter in network.parameters())
        # Fused: one pass over weights, gradients and moments.
        return torch.optim.AdamW(groups, **common, fused=on_gpu or None)
    if find_spec("torchao") is None:
        raise UserError("moments = '8bit' needs torchao: pip install 'lcm-distill[eightbit]', or leave it at 'float32'")
    from torchao.optim import AdamW8bit

    return AdamW8bit(groups, **common, block_size=BLOCK)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of a learning rate."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):  # of torchao's step, which is compiled and reads it where it is
            group["lr"].fill_(rate * group["share"])
        else:
            group["lr"] = rate * group["share"]
