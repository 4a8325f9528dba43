"""DPM-Solver++ (arXiv 2211.01095): second order on few and wide steps.

A step is the exact solution for a denoised sample that is constant, or linear, in ln sigma. That of Heun's method is
exact for a slope that is linear in sigma, which it is far from where a step halves the noise.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser


def two_stage_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """A step of DPM-Solver++(2S), algorithm 1 with r = 1/2: two evaluations, the second at the mean ln sigma.

    Args:
        x: (B, C, H, W). sigma, sigma_next: (B,) or (1,), both above 0.

    Returns:
        x at the next sigma, of x's dtype.
    """
    middle = (sigma * sigma_next).sqrt()
    halfway = _towards(denoise(x, sigma), x, middle / sigma)
    return _towards(denoise(halfway, middle), x, sigma_next / sigma)


def follow_to_end(denoise: Denoiser, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The end at sigma 0 of the probability-flow ODE's trajectory through `x`, by DPM-Solver++(2M), algorithm 2.

    One evaluation a step: the denoised sample is linear in ln sigma, as this step and the one before have it. The first
    step and the last, from the lowest sigma to 0, take their denoised sample as constant.

    Args:
        x: (B, C, H, W), at the first sigma.
        sigmas: falling, positive, one evaluation each.

    Returns:
        (B, C, H, W), of x's dtype.
    """
    earlier: Tensor | None = None
    step_before = 0.0
    for sigma, sigma_next in pairwise([*sigmas, 0.0]):
        denoised = denoise(x, torch.full((1,), sigma, dtype=x.dtype, device=x.device))
        if not sigma_next:
            return denoised
        ratio = sigma_next / sigma
        step = -math.log(ratio)
        ahead = denoised if earlier is None else denoised + step / (2 * step_before) * (denoised - earlier)
        x = ratio * x + (1 - ratio) * ahead
        earlier, step_before = denoised, step
    return x


def _towards(denoised: Tensor, x: Tensor, ratio: Tensor) -> Tensor:
    """The noisy sample at `ratio` of its sigma, (B,) or (1,), if its denoised sample stays what it is."""
    kept = ratio.view(-1, 1, 1, 1).to(x.dtype)
    return kept * x + (1 - kept) * denoised
