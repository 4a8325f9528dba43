"""Tokens to the experts that chose them, and back: an expert-choice layer's moves (arXiv 2202.09368)."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from lcm_distill.kernels.operators import is_fused, operator


class Routes:
    """Which expert takes which token.

    Attributes:
        rows: (E K,), int64, tokens by their number in the flat batch (B T), in the order in which experts hold them:
            expert by expert, then sample by sample.
        places: (B, E, T), int32, where in that order an expert holds a token, -1 where it does not; what makes moving
            back a sum of a fixed order. None for the plain path, which adds rows up as they come.
    """

    def __init__(self, chosen: Tensor, moved: Tensor) -> None:
        """Routes of tokens (B, T, D) that are `chosen` (B, E, taken), int64, by their number in the sample."""
        (batch, experts, taken), tokens = chosen.shape, moved.shape[1]
        first_token = torch.arange(0, batch * tokens, tokens, device=chosen.device)[:, None, None]
        self.rows = (chosen + first_token).transpose(0, 1).flatten()
        self.places: Tensor | None = None
        if is_fused(moved):
            place = torch.arange(batch * experts * taken, dtype=torch.int32, device=chosen.device)
            nowhere = torch.full((batch, experts, tokens), -1, dtype=torch.int32, device=chosen.device)
            self.places = nowhere.scatter_(2, chosen, place.view(experts, batch, taken).transpose(0, 1))


def gather(tokens: Tensor, routes: Routes) -> Tensor:
    """(B, T, D) -> (E K, D): the tokens as experts hold them."""
    if routes.places is None:
        return tokens.flatten(0, 1).index_select(0, routes.rows)
    return cast(Tensor, _Gather.apply(tokens, routes.rows, routes.places))


def combine(outputs: Tensor, gates: Tensor, routes: Routes, like: Tensor) -> Tensor:
    """What experts made of their tokens, each times its gate, added up token by token.

    Args:
        outputs: (E K, D). gates: (E K,). like: (B, T, D).

    Returns:
        As `like`; a token that no expert took is zero.
    """
    if routes.places is None:
        gated = (outputs * gates[:, None]).to(like.dtype)
        return torch.zeros_like(like).flatten(0, 1).index_add(0, routes.rows, gated).view_as(like)
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
