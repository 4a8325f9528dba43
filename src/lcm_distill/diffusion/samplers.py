"""From noise to samples: EDM's deterministic sampler, the multistep consistency sampler and the one along phases."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from lcm_distill.core.device import to_device
from lcm_distill.diffusion.preconditioning import Denoiser, jump_to

Solver = Callable[[Denoiser, Tensor, Tensor, Tensor], Tensor]
"""(denoiser, x (B, C, H, W), sigma (B,) or (1,), next sigma of the same shape) -> x at the next sigma.

None looks at the values of its tensors: a GPU's queue would have to run empty first.
"""


def euler_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """First order, one evaluation; the next sigma may be 0. On this ODE it is DDIM's step (arXiv 2010.02502)."""
    return x + _column(sigma_next - sigma, x) * _slope(denoise, x, sigma)


def heun_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Second order, two evaluations (arXiv 2206.00364, algorithm 1 between levels above 0, where the slope exists)."""
    slope = _slope(denoise, x, sigma)
    span = _column(sigma_next - sigma, x)
    end_slope = _slope(denoise, x + span * slope, sigma_next)
    return x + span * (slope + end_slope) / 2


SOLVERS: dict[str, Solver] = {"euler": euler_step, "heun": heun_step}


def network_evaluations(solver: str, steps: int, guided: bool) -> int:
    """Forward passes a sample takes over `steps` steps to sigma 0, both guidance branches counted."""
    evaluations = 2 * steps - 1 if solver == "heun" else steps
    return evaluations * (2 if guided else 1)


def _slope(denoise: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    return (x - denoise(x, sigma)) / _column(sigma, x)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(like.dtype)


def sample_edm(denoise: Denoiser, noise: Tensor, sigmas: Tensor, solver: Solver) -> Tensor:
    """Follow the probability-flow ODE down `sigmas` (arXiv 2206.00364, algorithm 1 without churn).

    The last step, to 0, is Euler's whatever the solver: the ODE has no slope there.

    Args:
        noise: (B, C, H, W), standard normal; it is scaled by the first sigma here.
        sigmas: (steps + 1,), falling, 0 at the end.

    Returns:
        (B, C, H, W), in noise's dtype.
    """
    levels = to_device(sigmas, noise.device)[:, None]
    x = noise * levels[0].to(noise.dtype)
    *steps, last = pairwise(levels)
    for sigma, sigma_next in steps:
        x = solver(denoise, x, sigma, sigma_next)
    return euler_step(denoise, x, *last)


def sample_consistency(
    jump: Denoiser, noise: Tensor, sigmas: Tensor, sigma_min: float, fresh_noise: Callable[[int], Tensor]
) -> Tensor:
    """Jump to the start of the trajectory, noise again, jump again (arXiv 2303.01469, algorithm 1).

    Args:
        jump: the consistency function.
        noise: (B, C, H, W), standard normal; it is scaled by the first sigma here.
        sigmas: (steps,), falling and above sigma_min: a jump from sigma_min itself would change nothing.
        fresh_noise: standard normal of noise's shape for step 1, 2, ...

    Returns:
        (B, C, H, W), in noise's dtype.
    """
    levels = to_device(sigmas, noise.device)
    x = jump(noise * levels[0].to(noise.dtype), levels[:1])
    for step in range(1, len(levels)):
        x = jump_again(jump, x, levels[step : step + 1], sigma_min, fresh_noise(step))
    return x


def jump_again(jump: Denoiser, x: Tensor, sigma: Tensor, sigma_min: float, noise: Tensor) -> Tensor:
    """One more step of the multistep consistency sampler: noise x, which lies at sigma_min, up to `sigma`, and jump.

    Args:
        x, noise: (B, C, H, W); noise is standard normal. sigma: (1,), above sigma_min.
    """
    added = (sigma**2 - sigma_min**2).sqrt().view(-1, 1, 1, 1).to(x.dtype)
    return jump(x + added * noise, sigma)


def sample_phased(jump: Denoiser, noise: Tensor, sigmas: Tensor, sigma_min: float) -> Tensor:
    """Jump from edge to edge of the phases, without fresh noise (arXiv 2405.18407, section 3.1).

    Args:
        jump: the consistency function of a student that was trained within these phases.
        noise: (B, C, H, W), standard normal; it is scaled by the first sigma here.
        sigmas: (steps,), the phases' upper edges, falling and above sigma_min, where the last jump lands.

    Returns:
        (B, C, H, W), in noise's dtype.
    """
    edges = to_device(torch.cat([sigmas, sigmas.new_tensor([sigma_min])]), noise.device)
    x = noise * edges[0].to(noise.dtype)
    for sigma, edge in pairwise(edges):
        x = jump_to(jump, x, sigma[None], edge[None], sigma_min)
    return x
