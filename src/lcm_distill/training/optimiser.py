"""AdamW over the trained networks, with moments in float32 or 8 bits, and its learning-rate schedule."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lcm_distill.config import OptimiserConfig
from lcm_distill.core.errors import UserError

BLOCK = 256
"""Values that share one scale in 8-bit moments."""
MOMENT_BYTES = {"float32": 8.0, "8bit": 2 * (1 + 4 / BLOCK)}
"""Bytes of both moments together, for each parameter."""


def build_optimiser(rate_factors: Mapping[nn.Module, float], settings: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW with one parameter group for each network; `set_learning_rate` sets its rates, which start at 0.

    Args:
        rate_factors: the networks, each with the factor that multiplies its learning rate.

    Raises:
        UserError: 8-bit moments are configured and torchao is not installed.
    """
    groups = [{"params": list(network.parameters()), "share": factor} for network, factor in rate_factors.items()]
    common: dict[str, Any] = {"lr": 0.0, "betas": settings.betas, "weight_decay": settings.weight_decay}
    if settings.moments == "float32":
        on_gpu = all(parameter.is_cuda for network in rate_factors for parameter in network.parameters())
        # Fused: one pass over weights, gradients and moments.
        return torch.optim.AdamW(groups, **common, fused=on_gpu or None)
    if find_spec("torchao") is None:
        raise UserError("moments = '8bit' needs torchao: pip install 'lcm-distill[eightbit]', or leave it at 'float32'")
    from torchao.optim import AdamW8bit  # pyright: ignore[reportMissingTypeStubs]

    return AdamW8bit(groups, **common, block_size=BLOCK)


def learning_rate(settings: OptimiserConfig, step: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then constant, then a decay as `settings.decayed`."""
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    decay_steps = settings.decay_fraction * settings.steps
    left = min(1.0, (settings.steps - step) / decay_steps) if decay_steps else 1.0
    return settings.learning_rate * warmup * settings.decayed(left)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's learning rate to `rate` times its factor."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):  # torchao's compiled update reads the rate from this tensor
            group["lr"].fill_(rate * group["share"])
        else:
            group["lr"] = rate * group["share"]
