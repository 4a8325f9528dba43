"""Activations between the two matrix products of a feed-forward layer."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from lcm_distill.kernels import plain
from lcm_distill.kernels.operators import is_fused, operator


def swiglu(gate: Tensor, value: Tensor) -> Tensor:
    """silu(gate) * value (arXiv 2002.05202); `gate`, `value` and the result have one shape and dtype."""
    if is_fused(gate):
        return cast(Tensor, _Swiglu.apply(gate, value))
    return plain.swiglu(gate, value)


def gelu_product(hidden: Tensor, weights: Tensor) -> Tensor:
    """gelu(hidden) @ weights, with the exact gelu.

    Args:
        hidden: (..., T, H). weights: (..., H, D), of the same dtype.

    Returns:
        (..., T, D).
    """
    if not torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():  # pyright: ignore[reportPrivateUsage]
        return plain.gelu_product(hidden, weights)
    return cast(Tensor, _GeluProduct.apply(hidden, weights))


class _Swiglu(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(gate, value)
        return _swiglu(gate, value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return _swiglu_backward(grads[0].contiguous(), *ctx.saved_tensors)


class _GeluProduct(Function):
    """Saves only `hidden` for the backward pass, which recomputes its gelu and allocates one tensor of its size."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weights)
        return functional.gelu(hidden) @ weights

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        (grad,), (hidden, weights) = grads, ctx.saved_tensors
        grad_hidden = grad @ weights.transpose(-1, -2)
        if is_fused(hidden):
            activated = _gelu_backward(grad_hidden, hidden)
        else:
            activated = functional.gelu(hidden)
            torch.ops.aten.gelu_backward(grad_hidden, hidden, grad_input=grad_hidden)
        return grad_hidden, activated.transpose(-1, -2) @ grad if ctx.needs_input_grad[1] else None


def _fake_swiglu(gate: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(gate, memory_format=torch.contiguous_format)


def _launch_swiglu(gate: Tensor, value: Tensor) -> Tensor:
    from lcm_distill.kernels.gpu.activations import swiglu

    result = _fake_swiglu(gate, value)
    swiglu(gate.contiguous(), value.contiguous(), result)
    return result


def _fake_swiglu_backward(grad: Tensor, gate: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return _fake_swiglu(gate, value), _fake_swiglu(gate, value)


def _launch_swiglu_backward(grad: Tensor, gate: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    from lcm_distill.kernels.gpu.activations import swiglu_backward

    results = _fake_swiglu_backward(grad, gate, value)
    swiglu_backward(grad, gate.contiguous(), value.contiguous(), *results)
    return results


def _fake_gelu_backward(grad: Tensor, hidden: Tensor) -> Tensor:
    return torch.empty_like(hidden, memory_format=torch.contiguous_format)


def _launch_gelu_backward(grad: Tensor, hidden: Tensor) -> Tensor:
    from lcm_distill.kernels.gpu.activations import gelu_backward

    activated = _fake_gelu_backward(grad, hidden)
    gelu_backward(grad, hidden.contiguous(), activated)
    return activated


_swiglu = operator("swiglu(Tensor gate, Tensor value) -> Tensor", _fake_swiglu, _launch_swiglu)
_swiglu_backward = operator(
    "swiglu_backward(Tensor grad, Tensor gate, Tensor value) -> (Tensor, Tensor)",
    _fake_swiglu_backward,
    _launch_swiglu_backward,
)
_gelu_backward = operator(
    # `grad`, the gradient of the gelu, is overwritten by that of `hidden`; the result is gelu(hidden).
    "gelu_backward_(Tensor(a!) grad, Tensor hidden) -> Tensor",
    _fake_gelu_backward,
    _launch_gelu_backward,
)
