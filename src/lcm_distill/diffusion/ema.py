"""Exponential moving averages of weights."""

import torch
from torch import Tensor, nn


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Average <- decay * average + (1 - decay) * model, in place, for every parameter."""
    averaged, current = list[Tensor](average.parameters()), list[Tensor](model.parameters())
    with torch.no_grad():
        torch._foreach_lerp_(averaged, current, 1 - decay)  # pyright: ignore


def power_decay(step: int, exponent: float) -> float:
    """Decay of the power-function average at update `step`, 1 or more (arXiv 2312.02696, eq. 127).

    Update t then has weight t**exponent: the profile widens with training, and exponent 0 is a plain mean.
    """
    return (1 - 1 / step) ** (exponent + 1)
