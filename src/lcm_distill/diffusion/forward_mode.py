"""Derivatives along a direction, by forward-mode differentiation."""

import warnings
from typing import cast

import torch
from torch import Tensor
from torch.func import jvp  # pyright: ignore[reportUnknownVariableType]
from torch.nn.attention import SDPBackend, sdpa_kernel

from lcm_distill.diffusion.preconditioning import Denoiser


def value_and_slope(
    function: Denoiser, x: Tensor, sigma: Tensor, x_rate: Tensor, sigma_rate: Tensor
) -> tuple[Tensor, Tensor]:
    """A function of (x, sigma), and its derivative as x and sigma change at the given rates; both without gradient.

    One pass costs about two evaluations. The choices of an expert-choice layer are piecewise constant in its input,
    so they count as fixed: the derivative is that of the network with the experts' tokens held where they are.

    Args:
        function: (B, C, H, W), (B,) -> (B, C, H, W).
        x, x_rate: (B, C, H, W). sigma, sigma_rate: (B,).

    Returns:
        Value and derivative, each (B, C, H, W).
    """
    # Fused attention has no forward-mode derivative. Loading PyTorch's own table of derivatives warns of its insides.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.script", FutureWarning)
        warnings.filterwarnings("ignore", r".*torch\.jit\.script", DeprecationWarning)
        return cast(tuple[Tensor, Tensor], jvp(function, (x, sigma), (x_rate, sigma_rate)))
