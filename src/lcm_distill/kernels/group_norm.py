"""Group norm with bias and activation, and residual addition, fused for channels-last images and without gradients.

cuDNN's fast convolutions take channels-last images. PyTorch's group norm on CUDA takes only the other layout, and bias,
activation and residual each take another pass over memory. The fused norm reads twice and writes once in all.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lcm_distill.kernels.operators import is_fused, operator

LAYOUT = torch.channels_last


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, input_bias: Tensor | None = None
) -> Tensor:
    """Group norm (arXiv 1803.08494), followed by SiLU if `silu`; computed in float32.

    Args:
        x: (B, C, H, W), float32 or lower.
        weight, bias: (C,), of the norm.
        groups: number of groups of channels; it divides C.
        eps: added to the variance.
        input_bias: (C,), added to `x` first: the bias of the convolution before, which left it out.

    Returns:
        (B, C, H, W) in the dtype of `x`, channels-last.
    """
    if is_fused(x):
        return _group_norm(x, weight, bias, groups, eps, silu, input_bias)
    values = x.float() if input_bias is None else x.float() + input_bias.float()[:, None, None]
    normed = functional.group_norm(values, groups, weight.float(), bias.float(), eps)
    return (functional.silu(normed) if silu else normed).to(x.dtype, memory_format=LAYOUT)


def sum_with_bias(x: Tensor, other: Tensor, bias: Tensor) -> Tensor:
    """X + other + bias, computed in float32.

    Args:
        x, other: (B, C, H, W), of one dtype. bias: (C,).

    Returns:
        (B, C, H, W) in the dtype of `x`, channels-last.
    """
    if is_fused(x):
        return _sum_with_bias(x, other, bias)
    return (x.float() + other.float() + bias.float()[:, None, None]).to(x.dtype, memory_format=LAYOUT)


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=LAYOUT)


def _launch_group_norm(x: Tensor, *norm: Any) -> Tensor:
    from lcm_distill.kernels.gpu.group_norm import group_norm

    out = _fake(x)
    group_norm(x.contiguous(memory_format=LAYOUT), *norm, out=out)
    return out


def _launch_sum_with_bias(x: Tensor, other: Tensor, bias: Tensor) -> Tensor:
    from lcm_distill.kernels.gpu.group_norm import sum_with_bias

    out = _fake(x)
    sum_with_bias(x.contiguous(memory_format=LAYOUT), other.contiguous(memory_format=LAYOUT), bias, out)
    return out


_group_norm = operator(
    "group_norm(Tensor x, Tensor weight, Tensor bias, int groups, float eps, bool silu, Tensor? input_bias) -> Tensor",
    _fake,
    _launch_group_norm,
)
_sum_with_bias = operator("sum_with_bias(Tensor x, Tensor other, Tensor bias) -> Tensor", _fake, _launch_sum_with_bias)
