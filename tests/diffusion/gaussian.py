"""The closed form everything is tested on: data N(0, sigma_data^2), for which a network that returns 0 is exact."""

import torch
from torch import Tensor

SIGMA_DATA, SIGMA_MIN, SIGMA_MAX = 0.9, 0.002, 80.0
CAPTIONS = torch.zeros(1, 1, 1)


def zero_network(latents, c_noise, captions, guidance=None):
    """EDM's F of the exact denoiser."""
    return torch.zeros_like(latents)


def exact_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """E[clean | x]."""
    return x * (SIGMA_DATA**2 / (SIGMA_DATA**2 + column(sigma, x) ** 2))


def flow(x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The probability-flow ODE's exact solution from sigma to sigma_next."""
    return x * ((SIGMA_DATA**2 + column(sigma_next, x) ** 2) / (SIGMA_DATA**2 + column(sigma, x) ** 2)).sqrt()


def exact_jump(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact consistency function, which maps to sigma_min."""
    return flow(x, sigma, torch.full_like(sigma, SIGMA_MIN))


def column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(like.dtype)
