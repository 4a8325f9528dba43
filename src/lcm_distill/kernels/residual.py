"""Residual addition and adaptive LayerNorm (adaLN of DiT, arXiv 2212.09748), fused into one pass over the tokens.

A transformer block takes three of these passes, one before each of its branches.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from lcm_distill.kernels import plain
from lcm_distill.kernels.operators import is_fused, operator
from lcm_distill.kernels.plain import EPS


def normalise(
    x: Tensor,
    weight: Tensor,
    shift: Tensor | None = None,
    scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """LayerNorm without bias, then `(1 + scale) h + shift`, (B, T, D); arguments as in `add_and_normalise`."""
    return add_and_normalise(x, None, None, weight, shift, scale, dtype=dtype)[1]


def add_and_normalise(
    x: Tensor,
    branch: Tensor | None,
    gate: Tensor | None,
    weight: Tensor,
    shift: Tensor | None = None,
    scale: Tensor | None = None,
    rest: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """`plain.add_and_normalise`: x + gate branch (B, T, D), and LayerNorm of the sum with `(1 + scale) h + shift`.

    Continue with this sum, not with x: its backward pass computes the gradient through both results at once. `rest`
    receives no gradient.
    """
    dtype = dtype or x.dtype
    if is_fused(x) and (rest is None or not torch.is_grad_enabled()):
        return cast(tuple[Tensor, Tensor], _Fused.apply(x, weight, branch, gate, rest, shift, scale, dtype))
    return plain.add_and_normalise(x, branch, gate, weight, shift, scale, rest, dtype)


def add(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    """`plain.add`: x + gate branch, (B, T, D), in the dtype of x."""
    if is_fused(x):
        return cast(Tensor, _FusedAdd.apply(x, branch, gate))
    return plain.add(x, branch, gate)


class _Fused(Function):
    """Saves the sum, the branch and two statistics per token for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        branch: Tensor | None,
        gate: Tensor | None,
        rest: Tensor | None,
        shift: Tensor | None,
        scale: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        total, normed, mean, rstd = _forward(x, weight, branch, gate, rest, shift, scale, EPS, dtype)
        total = x.view_as(x) if branch is None else total
        ctx.save_for_backward(total, weight, branch if gate is not None else None, gate, scale, mean, rstd)
        ctx.branch_dtype = None if branch is None else branch.dtype
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight, branch, gate, scale, mean, rstd = ctx.saved_tensors
        grad_total, grad_normed = grads
        if grad_normed is None:  # nothing depends on the normalised tokens
            grad_normed = torch.zeros_like(total)
        grad_x, grad_branch, sums = _backward(
            grad_normed.contiguous(), None if grad_total is None else grad_total.contiguous(), total, weight, branch,
            gate, scale, mean, rstd, ctx.branch_dtype,
        )  # fmt: skip
        of_shift, of_scale, of_gate = sums.sum(dim=1).unbind(dim=1)  # (B, D), float32
        grad_weight = (of_scale if scale is None else (1 + scale) * of_scale).sum(dim=0)
        return (
            grad_x,
            grad_weight.to(weight.dtype),
            grad_branch if ctx.branch_dtype else None,
            None if gate is None else of_gate.to(gate.dtype),
            None,
            None if scale is None else of_shift.to(scale.dtype),
            None if scale is None else (weight * of_scale).to(scale.dtype),
            None,
        )


class _FusedAdd(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
        ctx.save_for_backward(branch if gate is not None else None, gate)
        ctx.branch_dtype = branch.dtype
        return _add(x, branch, gate)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        (grad,), (branch, gate) = grads, ctx.saved_tensors
        if gate is None:
            return grad, grad.to(ctx.branch_dtype), None
        grad_branch, sums = _add_backward(grad.contiguous(), branch, gate)
        return grad, grad_branch, sums.sum(dim=1).to(gate.dtype)


ROWS = 32
"""Tokens of one program of a backward kernel, which stores sums over them for the gradients of weights and gates."""


def _fake_forward(
    x: Tensor, weight: Tensor, branch: Tensor | None, gate: Any, rest: Any, shift: Any, scale: Any, eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    total = x.new_empty(0) if branch is None else torch.empty_like(x, memory_format=torch.contiguous_format)
    tokens = x.new_empty(x.shape[:2], dtype=torch.float32)
    return total, x.new_empty(x.shape, dtype=dtype), tokens, torch.empty_like(tokens)


def _launch_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from lcm_distill.kernels.gpu.residual import forward

    results = _fake_forward(*arguments)
    forward(*arguments[:-1], *results)  # pyright: ignore[reportCallIssue]
    return results


def _fake_backward(
    grad_normed: Tensor, grad_total: Tensor | None, total: Tensor, weight: Tensor, branch: Any, gate: Any, scale: Any,
    mean: Tensor, rstd: Tensor, branch_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, tokens, dim = total.shape
    grad_x = torch.empty_like(total, memory_format=torch.contiguous_format)
    grad_branch = total.new_empty(total.shape if branch_dtype else (0,), dtype=branch_dtype or total.dtype)
    return grad_x, grad_branch, total.new_empty((batch, -(-tokens // ROWS), 3, dim), dtype=torch.float32)


def _launch_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from lcm_distill.kernels.gpu.residual import backward

    results = _fake_backward(*arguments)
    backward(*arguments, *results, ROWS)  # pyright: ignore[reportCallIssue]
    return results


def _fake_add(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _launch_add(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    from lcm_distill.kernels.gpu.residual import add

    total = _fake_add(x, branch, gate)
    add(x, branch, gate, total)
    return total


def _fake_add_backward(grad: Tensor, branch: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    batch, tokens, dim = grad.shape
    sums = grad.new_empty((batch, -(-tokens // ROWS), dim), dtype=torch.float32)
    return torch.empty_like(branch, memory_format=torch.contiguous_format), sums


def _launch_add_backward(grad: Tensor, branch: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    from lcm_distill.kernels.gpu.residual import add_backward

    results = _fake_add_backward(grad, branch, gate)
    add_backward(grad, branch, gate, *results, ROWS)
    return results


_forward = operator(
    "add_and_normalise(Tensor x, Tensor weight, Tensor? branch, Tensor? gate, Tensor? rest, Tensor? shift, "
    "Tensor? scale, float eps, ScalarType dtype) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_forward,
    _launch_forward,
)
_backward = operator(
    "add_and_normalise_backward(Tensor grad_normed, Tensor? grad_total, Tensor total, Tensor weight, Tensor? branch, "
    "Tensor? gate, Tensor? scale, Tensor mean, Tensor rstd, ScalarType? branch_dtype) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
    _launch_backward,
)
_add = operator("add_branch(Tensor x, Tensor branch, Tensor? gate) -> Tensor", _fake_add, _launch_add)
_add_backward = operator(
    "add_branch_backward(Tensor grad, Tensor branch, Tensor gate) -> (Tensor, Tensor)",
    _fake_add_backward,
    _launch_add_backward,
)
