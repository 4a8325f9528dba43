"""Noise levels: the discrete schedule of samplers and the distribution that training draws from."""

import torch
from torch import Tensor


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """The sampling schedule of EDM (arXiv 2206.00364, eq. 5).

    Returns:
        (steps + 1,), float64, falling from `sigma_max` to `sigma_min` and then 0. One step has only
        `sigma_max` and 0.
    """
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (ends[0] + ramp * (ends[1] - ends[0])) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def lognormal_sigmas(normal: Tensor, mean: float, std: float, sigma_min: float, sigma_max: float) -> Tensor:
    """Training noise levels with ln sigma ~ N(mean, std), from standard normal draws of any shape.

    Levels outside [sigma_min, sigma_max] are moved to the nearer end.
    """
    return (normal * std + mean).exp().clamp(sigma_min, sigma_max)


def uniform_sigmas(uniform: Tensor, lowest: float, highest: float, rho: float) -> Tensor:
    """Training noise levels spread as evenly as EDM's schedule, from uniform draws in [0, 1) of any shape.

    sigma^(1/rho) is uniform over (lowest, highest], so each interval between neighbours of `karras_sigmas` is as
    likely as any other.
    """
    ends = highest ** (1 / rho), lowest ** (1 / rho)
    return ((ends[0] + uniform * (ends[1] - ends[0])) ** rho).clamp(lowest, highest)
