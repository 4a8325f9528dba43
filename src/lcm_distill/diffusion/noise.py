"""Sigmas: the discrete schedule of samplers, and the distributions that training draws from."""

import torch
from torch import Tensor


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
