"""Sigmas: the discrete schedule of samplers, and the distributions that training draws from."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lcm_distill.core.errors import UserError

ROUNDING = 1e-6
"""Relative difference by which a sigma may miss the end of its range."""


def fall_within(sigmas: Sequence[float], lowest: float, highest: float = math.inf) -> bool:
    """Whether sigmas are finite, fall, and lie between a model's sigma_min and sigma_max; there is at least one."""
    if not sigmas or not all(map(math.isfinite, sigmas)):
        return False
    inside = sigmas[0] <= highest * (1 + ROUNDING) and sigmas[-1] >= lowest * (1 - ROUNDING)
    return inside and all(upper > lower for upper, lower in pairwise(sigmas))


def require_falling(name: str, sigmas: Sequence[float], lowest: float, highest: float = math.inf) -> None:
    """Check that a model can be sampled at these sigmas; see `fall_within`.

    Args:
        name: of the sigmas, for the message. lowest, highest: sigma_min and sigma_max.

    Raises:
        UserError: it cannot; the message names them and what they must be.
    """
    if fall_within(sigmas, lowest, highest):
        return
    above = "" if highest == math.inf else f" and not above sigma_max {highest:g}"
    raise UserError(f"{name} = {list(sigmas)}: sigmas must be finite and fall, not below sigma_min {lowest:g}{above}")


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """The sampling schedule of EDM (arXiv 2206.00364, eq. 5).

    Returns:
        (steps + 1,), float64, falling from `sigma_max` to `sigma_min` and then 0; with one step, `sigma_max` and 0.
    """
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (ends[0] + ramp * (ends[1] - ends[0])) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def lognormal_sigmas(normal: Tensor, mean: float, std: float, sigma_min: float, sigma_max: float) -> Tensor:
    """Training sigmas with ln sigma ~ N(mean, std), clamped to [sigma_min, sigma_max] (arXiv 2206.00364, table 1).

    Args:
        normal: standard normal draws of any shape, which is that of the result.
    """
    return (normal * std + mean).exp().clamp(sigma_min, sigma_max)


def uniform_sigmas(uniform: Tensor, lowest: float, highest: float, rho: float) -> Tensor:
    """Training sigmas spread like EDM's schedule: sigma^(1/rho) is uniform over (lowest, highest].

    Every interval between neighbours of `karras_sigmas` is then equally likely.

    Args:
        uniform: draws in [0, 1) of any shape, which is that of the result.
    """
    ends = highest ** (1 / rho), lowest ** (1 / rho)
    return ((ends[0] + uniform * (ends[1] - ends[0])) ** rho).clamp(lowest, highest)
