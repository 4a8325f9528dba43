"""Normalised queries and keys from the packed output of the projection to queries, keys and values.

The norm is taken over all heads together.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from lcm_distill.kernels import plain
from lcm_distill.kernels.operators import is_fused, operator


def normalise_heads(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys after LayerNorm without weights, and unchanged values.

    Args:
        packed: (B, T, 3 W), queries, keys and values in this order.

    Returns:
        Each (B, T, W); the values are a view of `packed`.
    """
    if is_fused(packed):
        return cast(tuple[Tensor, Tensor, Tensor], _Fused.apply(packed))
    return plain.normalise_heads(packed)


class _Fused(Function):
    """Saves only its input for the backward pass, which writes the packed gradient of all three."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(packed)
        return *_forward(_queries_keys(packed)), packed.chunk(3, dim=-1)[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _backward(*(grad.contiguous() for grad in grads), _queries_keys(ctx.saved_tensors[0]))


def _queries_keys(packed: Tensor) -> Tensor:
    """Queries and keys (B, T, 2 W), a view of (B, T, 3 W): kernels do not read values."""
    return packed.contiguous()[..., : packed.shape[-1] // 3 * 2]


def _fake_forward(queries_keys: Tensor) -> tuple[Tensor, Tensor]:
    query = queries_keys.new_empty((*queries_keys.shape[:-1], queries_keys.shape[-1] // 2))
    return query, torch.empty_like(query)


def _launch_forward(queries_keys: Tensor) -> tuple[Tensor, Tensor]:
    from lcm_distill.kernels.gpu.heads import forward

    results = _fake_forward(queries_keys)
    forward(queries_keys, *results)
    return results


def _fake_backward(grad_query: Tensor, grad_key: Tensor, grad_value: Tensor, queries_keys: Tensor) -> Tensor:
    return grad_query.new_empty((*grad_query.shape[:-1], 3 * grad_query.shape[-1]))


def _launch_backward(grad_query: Tensor, grad_key: Tensor, grad_value: Tensor, queries_keys: Tensor) -> Tensor:
    from lcm_distill.kernels.gpu.heads import backward

    result = _fake_backward(grad_query, grad_key, grad_value, queries_keys)
    backward(grad_query, grad_key, grad_value, queries_keys, result)
    return result


_forward = operator("normalise_heads(Tensor queries_keys) -> (Tensor, Tensor)", _fake_forward, _launch_forward)
_backward = operator(
    "normalise_heads_backward(Tensor grad_query, Tensor grad_key, Tensor grad_value, Tensor queries_keys) -> Tensor",
    _fake_backward,
    _launch_backward,
)
