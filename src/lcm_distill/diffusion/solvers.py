"""One step along the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma (arXiv 2206.00364, eq. 1)."""

from collections.abc import Callable

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser

Solver = Callable[[Denoiser, Tensor, Tensor, Tensor], Tensor]
"""(denoiser, x (B, C, H, W), sigma (B,) or (1,), next sigma of the same shape) -> x at the next sigma."""


def euler_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """First order, one evaluation. On this ODE it is DDIM's step (arXiv 2010.02502)."""
    return x + _column(sigma_next - sigma, x) * _slope(denoise, x, sigma)


def heun_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Second order, two evaluations (arXiv 2206.00364, algorithm 1); an Euler step where sigma_next is 0."""
    slope = _slope(denoise, x, sigma)
    span = _column(sigma_next - sigma, x)
    predicted = x + span * slope
    if not bool(sigma_next.any()):
        return predicted
    end_slope = _slope(denoise, predicted, torch.where(sigma_next > 0, sigma_next, sigma))
    corrected = x + span * (slope + end_slope) / 2
    return torch.where(_column(sigma_next, x) > 0, corrected, predicted)


SOLVERS: dict[str, Solver] = {"euler": euler_step, "heun": heun_step}


def network_evaluations(solver: str, steps: int, guided: bool) -> int:
    """Forward passes a sample takes over `steps` steps to sigma 0, both guidance branches counted."""
    evaluations = 2 * steps - 1 if solver == "heun" else steps
    return evaluations * (2 if guided else 1)


def _slope(denoise: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    return (x - denoise(x, sigma)) / _column(sigma, x)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(like.dtype)
