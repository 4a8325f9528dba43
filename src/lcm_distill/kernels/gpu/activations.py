# Triton's functions are typed for its own compiler, not for pyright.
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
"""Kernels of `kernels.activations`, over contiguous tensors as one long row."""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Values of one program."""


@triton.jit
def swiglu_kernel(gate, value, result, count, BLOCK: tl.constexpr):
    """silu(gate) * value."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    x = tl.load(gate + place, mask=inside, other=0).to(tl.float32)
    y = tl.load(value + place, mask=inside, other=0).to(tl.float32)
    tl.store(result + place, (x * tl.sigmoid(x) * y).to(result.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward_kernel(grad, gate, value, grad_gate, grad_value, count, BLOCK: tl.constexpr):
    """Gradients of silu(gate) * value in both arguments."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    g = tl.load(grad + place, mask=inside, other=0).to(tl.float32)
    x = tl.load(gate + place, mask=inside, other=0).to(tl.float32)
    y = tl.load(value + place, mask=inside, other=0).to(tl.float32)
    share = tl.sigmoid(x)
    slope = share * (1 + x * (1 - share))
    tl.store(grad_gate + place, (g * y * slope).to(grad_gate.dtype.element_ty), mask=inside)
    tl.store(grad_value + place, (g * x * share).to(grad_value.dtype.element_ty), mask=inside)


@triton.jit
def gelu_backward_kernel(grad, hidden, activated, count, BLOCK: tl.constexpr):
    """Gelu of `hidden`; `grad` becomes the gradient of `hidden`."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    x = tl.load(hidden + place, mask=inside, other=0).to(tl.float32)
    g = tl.load(grad + place, mask=inside, other=0).to(tl.float32)
    below = 0.5 * (1 + tl.erf(x * 0.7071067811865476))
    density = tl.exp(-0.5 * x * x) * 0.3989422804014327
    tl.store(activated + place, (x * below).to(activated.dtype.element_ty), mask=inside)
    tl.store(grad + place, (g * (below + x * density)).to(grad.dtype.element_ty), mask=inside)


def _grid(values: Tensor) -> tuple[int]:
    return (triton.cdiv(values.numel(), BLOCK),)


def swiglu(gate: Tensor, value: Tensor, result: Tensor) -> None:
    """Compute `result`; all are contiguous."""
    swiglu_kernel[_grid(gate)](gate, value, result, gate.numel(), BLOCK)


def swiglu_backward(grad: Tensor, gate: Tensor, value: Tensor, grad_gate: Tensor, grad_value: Tensor) -> None:
    """Compute `grad_gate` and `grad_value`; all are contiguous."""
    swiglu_backward_kernel[_grid(gate)](grad, gate, value, grad_gate, grad_value, gate.numel(), BLOCK)


def gelu_backward(grad: Tensor, hidden: Tensor, activated: Tensor) -> None:
    """Compute `activated`, and overwrite `grad` by the gradient of `hidden`; all are contiguous."""
    gelu_backward_kernel[_grid(hidden)](grad, hidden, activated, hidden.numel(), BLOCK)
