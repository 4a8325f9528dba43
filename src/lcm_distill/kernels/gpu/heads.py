# Triton's functions are typed for its own compiler, not for pyright.
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
"""Kernels of `kernels.heads`; a token's queries, keys and values are contiguous."""

import triton
import triton.language as tl
from torch import Tensor

from lcm_distill.kernels.residual import EPS


@triton.jit
def unit_of(value, inside, width, eps):
    """A normalised row, (value - mean) / deviation, and 1 / deviation."""
    difference = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    inverse = 1 / tl.sqrt(tl.sum(difference * difference, 0) / width + eps)
    return difference * inverse, inverse


@triton.jit
def forward_kernel(packed, query, key, width, eps, BLOCK: tl.constexpr):
    """One program for each token."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK)
    inside = channels < width
    start = packed + row * 3 * width + channels
    unit, _ = unit_of(tl.load(start, mask=inside, other=0).to(tl.float32), inside, width, eps)
    tl.store(query + row * width + channels, unit.to(query.dtype.element_ty), mask=inside)
    unit, _ = unit_of(tl.load(start + width, mask=inside, other=0).to(tl.float32), inside, width, eps)
    tl.store(key + row * width + channels, unit.to(key.dtype.element_ty), mask=inside)


@triton.jit
def grad_of(grad, value, inside, width, eps):
    """LayerNorm's gradient in its input."""
    unit, inverse = unit_of(value, inside, width, eps)
    return inverse * (grad - tl.sum(grad, 0) / width - unit * (tl.sum(grad * unit, 0) / width))


@triton.jit
def backward_kernel(grad_query, grad_key, grad_value, packed, grad_packed, width, eps, BLOCK: tl.constexpr):
    """One program for each token."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK)
    inside = channels < width
    start, out = packed + row * 3 * width + channels, grad_packed + row * 3 * width + channels
    grad = tl.load(grad_query + row * width + channels, mask=inside, other=0).to(tl.float32)
    grad = grad_of(grad, tl.load(start, mask=inside, other=0).to(tl.float32), inside, width, eps)
    tl.store(out, grad.to(grad_packed.dtype.element_ty), mask=inside)
    grad = tl.load(grad_key + row * width + channels, mask=inside, other=0).to(tl.float32)
    grad = grad_of(grad, tl.load(start + width, mask=inside, other=0).to(tl.float32), inside, width, eps)
    tl.store(out + width, grad.to(grad_packed.dtype.element_ty), mask=inside)
    tl.store(out + 2 * width, tl.load(grad_value + row * width + channels, mask=inside, other=0), mask=inside)


def forward(queries_keys: Tensor, query: Tensor, key: Tensor) -> None:
    """Compute `query` and `key`; see `kernels.heads`."""
    width = query.shape[-1]
    block = triton.next_power_of_2(width)
    forward_kernel[(query.numel() // width,)](queries_keys, query, key, width, EPS, block)


def backward(
    grad_query: Tensor, grad_key: Tensor, grad_value: Tensor, queries_keys: Tensor, grad_packed: Tensor
) -> None:
    """Compute `grad_packed`; see `kernels.heads`."""
    width = grad_query.shape[-1]
    backward_kernel[(grad_query.numel() // width,)](
        grad_query, grad_key, grad_value, queries_keys, grad_packed, width, EPS, triton.next_power_of_2(width)
    )
