# Triton's functions are typed for its own compiler, not for pyright.
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
"""Kernels of `kernels.residual`: a program handles whole tokens and holds their channels in registers as float32."""

from typing import cast

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def load(pointer, place, mask):
    """Values as float32; zero where the mask is false."""
    return tl.load(pointer + place, mask=mask, other=0).to(tl.float32)


@triton.jit
def norm_gradient(grad, unit, inverse, dim):
    """LayerNorm's gradient in its input, from that in its output `unit`; `inverse` is 1 over the deviation."""
    along, mid = tl.sum(grad * unit, 0) / dim, tl.sum(grad, 0) / dim
    return inverse * (grad - mid - unit * along)


@triton.jit
def store_sums(place, of_shift, of_scale, of_gate, dim, inside):
    """Store a program's partial sums for shift, scale and gate as three rows (3, D)."""
    tl.store(place, of_shift, mask=inside)
    tl.store(place + dim, of_scale, mask=inside)
    tl.store(place + 2 * dim, of_gate, mask=inside)


@triton.jit
def forward_kernel(
    x, weight, branch, gate, rest, shift, scale, total, normed, mean, rstd,
    tokens, with_branch, dim, gate_stride, shift_stride, scale_stride, eps,
    BRANCH: tl.constexpr, GATE: tl.constexpr, REST: tl.constexpr, MODULATED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for each token; tokens from `with_branch` on have `rest` as their branch."""
    row = tl.program_id(0).to(tl.int64)
    sample = row // tokens
    channels = tl.arange(0, BLOCK)
    inside = channels < dim
    value = load(x, row * dim + channels, inside)
    if BRANCH:
        if REST:
            own = row < with_branch
            added = load(branch, row * dim + channels, inside & own)
            added += load(rest, channels, inside & (row >= with_branch))
        else:
            added = load(branch, row * dim + channels, inside)
        if GATE:
            added *= load(gate, sample * gate_stride + channels, inside)
        value = (value + added).to(total.dtype.element_ty).to(tl.float32)
        tl.store(total + row * dim + channels, value.to(total.dtype.element_ty), mask=inside)
    centre = tl.sum(value, 0) / dim
    difference = tl.where(inside, value - centre, 0.0)
    inverse = 1 / tl.sqrt(tl.sum(difference * difference, 0) / dim + eps)
    result = difference * inverse * load(weight, channels, inside)
    if MODULATED:
        result *= 1 + load(scale, sample * scale_stride + channels, inside)
        result += load(shift, sample * shift_stride + channels, inside)
    tl.store(normed + row * dim + channels, result.to(normed.dtype.element_ty), mask=inside)
    tl.store(mean + row, centre)
    tl.store(rstd + row, inverse)


@triton.jit
def backward_kernel(
    grad_normed, grad_total, total, weight, branch, gate, scale, mean, rstd, grad_x, grad_branch, sums,
    tokens, dim, gate_stride, scale_stride,
    PASSED: tl.constexpr, BRANCH: tl.constexpr, GATE: tl.constexpr, MODULATED: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for ROWS tokens of a sample; it stores their sums for the gradients of shift, scale and gate."""
    sample, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channels = tl.arange(0, BLOCK)
    inside = channels < dim
    factor = load(weight, channels, inside)
    if MODULATED:
        factor *= 1 + load(scale, sample * scale_stride + channels, inside)
    if GATE:
        strength = load(gate, sample * gate_stride + channels, inside)
    of_shift = tl.zeros((BLOCK,), tl.float32)
    of_scale = tl.zeros((BLOCK,), tl.float32)
    of_gate = tl.zeros((BLOCK,), tl.float32)
    for token in range(part * ROWS, min(part * ROWS + ROWS, tokens)):
        row = sample * tokens + token
        place = row * dim + channels
        inverse = tl.load(rstd + row)
        unit = (load(total, place, inside) - tl.load(mean + row)) * inverse
        unit = tl.where(inside, unit, 0.0)
        grad = load(grad_normed, place, inside)
        of_shift += grad
        of_scale += grad * unit
        grad *= factor
        result = norm_gradient(grad, unit, inverse, dim)
        if PASSED:
            result += load(grad_total, place, inside)
        tl.store(grad_x + place, result.to(grad_x.dtype.element_ty), mask=inside)
        if BRANCH:
            if GATE:
                of_gate += result * load(branch, place, inside)
                result *= strength
            tl.store(grad_branch + place, result.to(grad_branch.dtype.element_ty), mask=inside)
    place = sums + (sample * tl.num_programs(1) + part) * 3 * dim + channels
    store_sums(place, of_shift, of_scale, of_gate, dim, inside)


@triton.jit
def add_kernel(x, branch, gate, total, tokens, dim, gate_stride, GATE: tl.constexpr, BLOCK: tl.constexpr):
    """One program for each token."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, BLOCK)
    inside = channels < dim
    added = load(branch, row * dim + channels, inside)
    if GATE:
        added *= load(gate, (row // tokens) * gate_stride + channels, inside)
    value = load(x, row * dim + channels, inside) + added
    tl.store(total + row * dim + channels, value.to(total.dtype.element_ty), mask=inside)


@triton.jit
def add_backward_kernel(
    grad, branch, gate, grad_branch, sums, tokens, dim, gate_stride, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """One program for ROWS tokens of a sample."""
    sample, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channels = tl.arange(0, BLOCK)
    inside = channels < dim
    strength = load(gate, sample * gate_stride + channels, inside)
    of_gate = tl.zeros((BLOCK,), tl.float32)
    for token in range(part * ROWS, min(part * ROWS + ROWS, tokens)):
        place = (sample * tokens + token) * dim + channels
        value = load(grad, place, inside)
        of_gate += value * load(branch, place, inside)
        tl.store(grad_branch + place, (value * strength).to(grad_branch.dtype.element_ty), mask=inside)
    tl.store(sums + (sample * tl.num_programs(1) + part) * dim + channels, of_gate, mask=inside)


def forward(
    x: Tensor, weight: Tensor, branch: Tensor | None, gate: Tensor | None, rest: Tensor | None, shift: Tensor | None,
    scale: Tensor | None, eps: float, total: Tensor, normed: Tensor, mean: Tensor, rstd: Tensor,
) -> None:  # fmt: skip
    """Compute `total` (empty without a branch), `normed`, `mean` and `rstd`; see `kernels.residual`."""
    x = x.contiguous()
    batch, tokens, dim = x.shape
    branch = None if branch is None else branch.contiguous()
    gate, shift, scale = _rows(gate), _rows(shift), _rows(scale)
    with_branch = 0 if branch is None else len(branch) * tokens
    forward_kernel[(batch * tokens,)](
        x, weight, _or(branch, x), _or(gate, x), _or(rest, x), _or(shift, x), _or(scale, x), total, normed, mean, rstd,
        tokens, with_branch, dim, _stride(gate), _stride(shift), _stride(scale), eps,
        branch is not None, gate is not None, rest is not None, shift is not None, triton.next_power_of_2(dim),
    )  # fmt: skip


def backward(
    grad_normed: Tensor, grad_total: Tensor | None, total: Tensor, weight: Tensor, branch: Tensor | None,
    gate: Tensor | None, scale: Tensor | None, mean: Tensor, rstd: Tensor, branch_dtype: torch.dtype | None,
    grad_x: Tensor, grad_branch: Tensor, sums: Tensor, rows: int,
) -> None:  # fmt: skip
    """Compute `grad_x`, `grad_branch` (empty without a branch) and `sums`; see `kernels.residual`."""
    total = total.contiguous()
    batch, tokens, dim = total.shape
    branch = None if branch is None else branch.contiguous()
    gate, scale = _rows(gate), _rows(scale)
    backward_kernel[(batch, sums.shape[1])](
        grad_normed, _or(grad_total, total), total, weight, _or(branch, total), _or(gate, total), _or(scale, total),
        mean, rstd, grad_x, grad_branch, sums, tokens, dim, _stride(gate), _stride(scale),
        grad_total is not None, branch_dtype is not None, gate is not None, scale is not None, rows,
        triton.next_power_of_2(dim),
    )  # fmt: skip


def add(x: Tensor, branch: Tensor, gate: Tensor | None, total: Tensor) -> None:
    """Compute `total`; see `kernels.residual.add`."""
    x, branch, gate = x.contiguous(), branch.contiguous(), _rows(gate)
    batch, tokens, dim = x.shape
    add_kernel[(batch * tokens,)](
        x, branch, _or(gate, x), total, tokens, dim, _stride(gate), gate is not None, triton.next_power_of_2(dim)
    )


def add_backward(grad: Tensor, branch: Tensor, gate: Tensor, grad_branch: Tensor, sums: Tensor, rows: int) -> None:
    """Compute `grad_branch` and `sums`; see `kernels.residual`."""
    (batch, tokens, dim), gate = grad.shape, cast(Tensor, _rows(gate))
    add_backward_kernel[(batch, sums.shape[1])](
        grad, branch.contiguous(), gate, grad_branch, sums, tokens, dim, _stride(gate), rows,
        triton.next_power_of_2(dim),
    )  # fmt: skip


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """The tensor, or `other` as a placeholder for a pointer that the kernel does not read."""
    return other if tensor is None else tensor


def _rows(rows: Tensor | None) -> Tensor | None:
    """The same values (B, D) with contiguous channels."""
    return rows if rows is None or rows.stride(1) == 1 else rows.contiguous()


def _stride(rows: Tensor | None) -> int:
    """Stride between samples of (B, D); 0 for None."""
    return 0 if rows is None else rows.stride(0)
