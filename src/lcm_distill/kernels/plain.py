"""The chains of operations that the kernels fuse, in plain PyTorch: what every device computes without a kernel."""

import torch
from torch import Tensor
from torch.nn import functional

EPS = 1e-6
"""Of all norms."""


def normalise(
    x: Tensor,
    weight: Tensor,
    shift: Tensor | None = None,
    scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """LayerNorm without bias, then `(1 + scale) h + shift`, (B, T, D); arguments as in `add_and_normalise`."""
    exact = x.to(torch.promote_types(x.dtype, weight.dtype))
    normed = functional.layer_norm(exact, weight.shape, weight, eps=EPS)
    if shift is not None and scale is not None:
        normed = normed * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)
    return normed.to(dtype or x.dtype)


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
    """X + gate branch, LayerNorm of the sum without bias, then `(1 + scale) h + shift`.

    Args:
        x: (B, T, D), the residual stream. branch: (B, T, D), or None to add nothing.
        gate: (B, D), factors of the branch; None is 1.
        weight: (D,), of the norm.
        shift, scale: (B, D), both or neither.
        rest: (1, 1, D), the branch of samples from N on, where `branch` (N, T, D) is that of the first N samples.
        dtype: of the normalised tokens; None is that of x.

    Returns:
        The sum in the dtype of x, and the normalised tokens, each (B, T, D).
    """
    if branch is not None and rest is not None:
        branch = torch.cat([branch, rest.expand(len(x) - len(branch), *branch.shape[1:])])
    x = x if branch is None else add(x, branch, gate)
    return x, normalise(x, weight, shift, scale, dtype)


def add(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    """X + gate branch, in the dtype of x.

    Args:
        x, branch: (B, T, D). gate: (B, D), factors of the branch; None is 1.
    """
    return x + (branch if gate is None else gate.unsqueeze(1) * branch).to(x.dtype)


def normalise_heads(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys after LayerNorm without weights, and unchanged values.

    Args:
        packed: (B, T, 3 W), queries, keys and values in this order.

    Returns:
        Each (B, T, W); the values are a view of `packed`.
    """
    query, key, value = packed.chunk(3, dim=-1)
    return normalise_head(query), normalise_head(key), value


def normalise_head(rows: Tensor) -> Tensor:
    """LayerNorm without weights over the last dimension of (..., D)."""
    return functional.layer_norm(rows, rows.shape[-1:], eps=EPS)


def swiglu(gate: Tensor, value: Tensor) -> Tensor:
    """silu(gate) * value (arXiv 2002.05202); `gate`, `value` and the result have one shape and dtype."""
    return functional.silu(gate) * value


def gelu_product(hidden: Tensor, weights: Tensor) -> Tensor:
    """gelu(hidden) @ weights, with the exact gelu.

    Args:
        hidden: (..., T, H). weights: (..., H, D), of the same dtype.

    Returns:
        (..., T, D).
    """
    return functional.gelu(hidden) @ weights


class Routes:
    """Which expert takes which token.

    Attributes:
        rows: (E K,), int64, indices of tokens in the flat batch (B T) in the order of the experts' inputs: expert by
            expert, then sample by sample.
    """

    def __init__(self, chosen: Tensor, moved: Tensor) -> None:
        """Routes of a batch of tokens.

        Args:
            chosen: (B, E, taken), int64, indices within the sample of the tokens that each expert takes.
            moved: (B, T, D), the tokens.
        """
        batch, tokens = moved.shape[:2]
        first_token = torch.arange(0, batch * tokens, tokens, device=chosen.device)[:, None, None]
        self.rows = (chosen + first_token).transpose(0, 1).flatten()


def gather(tokens: Tensor, routes: Routes) -> Tensor:
    """Tokens (B, T, D) as the experts' inputs, (E K, D)."""
    return tokens.flatten(0, 1).index_select(0, routes.rows)


def combine(outputs: Tensor, gates: Tensor, routes: Routes, like: Tensor) -> Tensor:
    """Sum over the experts of gate times output, for every token.

    Args:
        outputs: (E K, D), of the experts. gates: (E K,).
        like: (B, T, D), whose shape and dtype the result has.

    Returns:
        (B, T, D); zero for a token that no expert takes.
    """
    gated = (outputs * gates[:, None]).to(like.dtype)
    return torch.zeros_like(like).flatten(0, 1).index_add(0, routes.rows, gated).view_as(like)
