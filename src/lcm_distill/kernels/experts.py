"""Gathers tokens for the experts that take them and combines the experts' outputs (arXiv 2202.09368)."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from lcm_distill.kernels import plain
from lcm_distill.kernels.operators import is_fused, operator


class Routes(plain.Routes):
    """Which expert takes which token.

    Attributes:
        places: (B, E, T), int32, index of a token in the order of `rows` for each expert, -1 where the expert does not
            take it. It lets the fused kernel sum in a fixed order. None for the plain path, which uses `index_add`.
    """

    def __init__(self, chosen: Tensor, moved: Tensor) -> None:
        """Routes of a batch of tokens.

        Args:
            chosen: (B, E, taken), int64, indices within the sample of the tokens that each expert takes.
            moved: (B, T, D), the tokens.
        """
        super().__init__(chosen, moved)
        (batch, experts, taken), tokens = chosen.shape, moved.shape[1]
        self.places: Tensor | None = None
        if is_fused(moved):
            place = torch.arange(batch * experts * taken, dtype=torch.int32, device=chosen.device)
            nowhere = torch.full((batch, experts, tokens), -1, dtype=torch.int32, device=chosen.device)
            self.places = nowhere.scatter_(2, chosen, place.view(experts, batch, taken).transpose(0, 1))


def gather(tokens: Tensor, routes: Routes) -> Tensor:
    """Tokens (B, T, D) as the experts' inputs, (E K, D)."""
    if routes.places is None:
        return plain.gather(tokens, routes)
    return cast(Tensor, _Gather.apply(tokens, routes.rows, routes.places))


def combine(outputs: Tensor, gates: Tensor, routes: Routes, like: Tensor) -> Tensor:
    """`plain.combine`: the sum over the experts of gate times output, (B, T, D), for every token."""
    if routes.places is None:
        return plain.combine(outputs, gates, routes, like)
    return cast(Tensor, _Combine.apply(outputs, gates, routes.rows, routes.places))


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return tokens.flatten(0, 1).index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _combine(grads[0].contiguous(), None, ctx.saved_tensors[0]), None, None


class _Combine(Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, gates: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(outputs, gates, rows)
        return _combine(outputs, gates, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return *_combine_backward(grads[0].contiguous(), *ctx.saved_tensors), None, None


def _fake_combine(outputs: Tensor, gates: Tensor | None, places: Tensor) -> Tensor:
    batch, _, tokens = places.shape
    return outputs.new_empty((batch, tokens, outputs.shape[1]))


def _launch_combine(outputs: Tensor, gates: Tensor | None, places: Tensor) -> Tensor:
    from lcm_distill.kernels.gpu.experts import combine

    result = _fake_combine(outputs, gates, places)
    combine(outputs.contiguous(), gates, places, result)
    return result


def _fake_combine_backward(grad: Tensor, outputs: Tensor, gates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(outputs, memory_format=torch.contiguous_format), torch.empty_like(gates)


def _launch_combine_backward(grad: Tensor, outputs: Tensor, gates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    from lcm_distill.kernels.gpu.experts import combine_backward

    results = _fake_combine_backward(grad, outputs, gates, rows)
    combine_backward(grad, outputs.contiguous(), gates, rows, *results)
    return results


_combine = operator(
    "combine_experts(Tensor outputs, Tensor? gates, Tensor places) -> Tensor", _fake_combine, _launch_combine
)
_combine_backward = operator(
    "combine_experts_backward(Tensor grad, Tensor outputs, Tensor gates, Tensor rows) -> (Tensor, Tensor)",
    _fake_combine_backward,
    _launch_combine_backward,
)
