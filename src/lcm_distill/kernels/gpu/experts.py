# Triton's functions are typed for its own compiler, not for pyright.
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
"""Kernels of `kernels.experts`, without atomic additions: sums have a fixed order."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def combine_kernel(
    outputs, gates, places, result, tokens, dim, GATED: tl.constexpr, EXPERTS: tl.constexpr, BLOCK: tl.constexpr
):
    """One program for each token, which adds the experts' outputs in turn."""
    row = tl.program_id(0).to(tl.int64)
    sample, token = row // tokens, row % tokens
    channels = tl.arange(0, BLOCK)
    inside = channels < dim
    total = tl.zeros((BLOCK,), tl.float32)
    for expert in tl.static_range(EXPERTS):  # pyright: ignore[reportGeneralTypeIssues]
        place = tl.load(places + (sample * EXPERTS + expert) * tokens + token).to(tl.int64)
        held = place >= 0
        value = tl.load(outputs + place * dim + channels, mask=inside & held, other=0).to(tl.float32)
        if GATED:
            value *= tl.load(gates + place, mask=held, other=0).to(tl.float32)
        total += value
    tl.store(result + row * dim + channels, total.to(result.dtype.element_ty), mask=inside)


@triton.jit
def combine_backward_kernel(grad, outputs, gates, rows, grad_outputs, grad_gates, dim, BLOCK: tl.constexpr):
    """One program for each input of an expert."""
    place = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK)
    inside = channels < dim
    value = tl.load(grad + tl.load(rows + place) * dim + channels, mask=inside, other=0).to(tl.float32)
    output = tl.load(outputs + place * dim + channels, mask=inside, other=0).to(tl.float32)
    tl.store(grad_gates + place, tl.sum(value * output, 0).to(grad_gates.dtype.element_ty))
    value *= tl.load(gates + place).to(tl.float32)
    tl.store(grad_outputs + place * dim + channels, value.to(grad_outputs.dtype.element_ty), mask=inside)


def combine(outputs: Tensor, gates: Tensor | None, places: Tensor, result: Tensor) -> None:
    """Compute `result`; see `kernels.experts`."""
    (batch, experts, tokens), dim = places.shape, outputs.shape[1]
    combine_kernel[(batch * tokens,)](
        outputs, outputs if gates is None else gates, places, result, tokens, dim, gates is not None, experts,
        triton.next_power_of_2(dim),
    )  # fmt: skip


def combine_backward(
    grad: Tensor, outputs: Tensor, gates: Tensor, rows: Tensor, grad_outputs: Tensor, grad_gates: Tensor
) -> None:
    """Compute `grad_outputs` and `grad_gates`; see `kernels.experts`."""
    count, dim = outputs.shape
    combine_backward_kernel[(count,)](
        grad, outputs, gates, rows, grad_outputs, grad_gates, dim, triton.next_power_of_2(dim)
    )
