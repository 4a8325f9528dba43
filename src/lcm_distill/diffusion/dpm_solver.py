"""DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2): second order for one evaluation a step, on few and wide steps."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lcm_distill.diffusion.preconditioning import Denoiser


def follow_to_end(denoise: Denoiser, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The end at sigma 0 of the probability-flow ODE's trajectory through `x`.

    A step is the exact solution for a denoised sample that is linear in ln sigma, taken from this step and the one
    before. The first step and the last, from the lowest sigma to 0, take their denoised sample as constant.

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
