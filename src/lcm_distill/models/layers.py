"""The layers of MicroDiT: norms, attention, feed-forwards and embeddings."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcm_distill.kernels.activations import swiglu
from lcm_distill.kernels.heads import normalise_heads
from lcm_distill.kernels.plain import EPS, normalise_head
from lcm_distill.kernels.residual import normalise
from lcm_distill.models.precision import Linear


def layer_norm(dim: int) -> nn.LayerNorm:
    """LayerNorm with a learned scale and no bias, as all norms of MicroDiT; `kernels.residual` computes it."""
    return nn.LayerNorm(dim, eps=EPS, bias=False)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention.

    Args:
        query: (B, T, D). key, value: (B, S, D).
        heads: number of heads; it divides D.

    Returns:
        (B, T, D), before the output projection.
    """
    query, key, value = (_split_heads(x, heads) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, heads, T, D / heads)."""
    return cast(Tensor, x.unflatten(-1, (heads, -1))).transpose(1, 2)  # pyright: ignore[reportUnknownMemberType]


class SelfAttention(nn.Module):
    """Self-attention over tokens (B, T, dim) with normalised queries and keys.

    Args:
        heads: number of heads. width: of queries, keys and values.
    """

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * width, bias=False)
        self.proj = Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T, dim) -> (B, T, dim)."""
        return self.proj(attend(*normalise_heads(self.qkv(x)), self.heads))

    def initialise(self, out_std: float) -> None:
        """Initialise the weights, those of the output projection with a standard deviation of `out_std`."""
        nn.init.trunc_normal_(self.qkv.weight, std=0.02)
        nn.init.trunc_normal_(self.proj.weight, std=out_std)


class CrossAttention(nn.Module):
    """Attention from tokens (B, T, dim) to caption tokens (B, S, dim) with normalised queries and keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = Linear(dim, dim, bias=False)
        self.kv_linear = Linear(dim, 2 * dim, bias=False)
        self.proj = Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, captions: Tensor) -> Tensor:
        """Tokens (B, T, dim) and captions (B, L, dim) -> (B, T, dim)."""
        key, value = self.kv_linear(captions).chunk(2, dim=-1)
        return self.proj(attend(normalise_head(self.q_linear(x)), normalise_head(key), value, self.heads))

    def attend_to_one(self, token: Tensor) -> Tensor:
        """Attention to a single token, which does not depend on the query: (1, 1, dim) -> (1, 1, dim)."""
        _, value = self.kv_linear(token).chunk(2, dim=-1)
        return self.proj(value)

    def initialise(self, out_std: float) -> None:
        """Initialise the weights, those of the output projection with a standard deviation of `out_std`."""
        nn.init.trunc_normal_(self.q_linear.weight, std=0.02)
        nn.init.trunc_normal_(self.kv_linear.weight, std=0.02)
        nn.init.trunc_normal_(self.proj.weight, std=out_std)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return multiple * math.ceil(value / multiple)


class FeedForward(nn.Module):
    """SwiGLU feed-forward (arXiv 2002.05202) over tokens (B, T, dim).

    The hidden width is two thirds of `hidden`, rounded up to a multiple of `multiple_of`.
    """

    def __init__(self, dim: int, hidden: int, multiple_of: int) -> None:
        super().__init__()
        width = round_up(int(2 * hidden / 3), multiple_of)
        self.w1 = Linear(dim, width, bias=False)
        self.w2 = Linear(dim, width, bias=False)
        self.w3 = Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim)."""
        return self.w3(swiglu(self.w1(x), self.w2(x)))

    def initialise(self, out_std: float) -> None:
        """Initialise the weights, those of the output projection with a standard deviation of `out_std`."""
        nn.init.trunc_normal_(self.w1.weight, std=0.02)
        nn.init.trunc_normal_(self.w2.weight, std=out_std)
        nn.init.trunc_normal_(self.w3.weight, std=out_std)


class Mlp(nn.Module):
    """Linear, GELU, norm, linear, (..., in_dim) -> (..., dim): the projection of caption tokens and pooled captions."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(in_dim, dim)
        self.norm = layer_norm(dim)
        self.fc2 = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> (..., dim)."""
        return self.fc2(normalise(functional.gelu(self.fc1(x), approximate="tanh"), self.norm.weight))

    def initialise(self) -> None:
        """Initialise the weights, in place."""
        nn.init.normal_(self.fc1.weight, std=0.02)
        nn.init.normal_(self.fc2.weight, std=0.02)


class ScalarEmbedder(nn.Module):
    """Embeds one scalar for each sample by 512 sinusoids (cosines first, periods up to 10,000) and two layers."""

    float32 = True
    FREQUENCIES = 512
    MAX_PERIOD = 10_000.0

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(self.FREQUENCIES, dim), nn.GELU(approximate="tanh"), Linear(dim, dim))

    def forward(self, value: Tensor) -> Tensor:
        """(B,) -> (B, dim)."""
        return self.mlp(self._sinusoids(value))

    def _sinusoids(self, value: Tensor) -> Tensor:
        """(B,) -> (B, FREQUENCIES), of the weights' dtype."""
        weights = _linear(self.mlp, 0).weight
        # In half precision a sinusoid's argument would be off by whole degrees.
        dtype = torch.float64 if weights.dtype == torch.float64 else torch.float32
        half = self.FREQUENCIES // 2
        rank = torch.arange(half, dtype=dtype, device=value.device) / half
        angles = value.to(dtype)[:, None] * torch.exp(-math.log(self.MAX_PERIOD) * rank)
        return torch.cat([angles.cos(), angles.sin()], dim=-1).to(weights.dtype)

    def initialise(self) -> None:
        """Initialise the weights, in place."""
        for layer in (_linear(self.mlp, 0), _linear(self.mlp, 2)):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def initialise_to_zero(self) -> None:
        """Initialise so that the embedding of every value is zero."""
        self.initialise()
        nn.init.zeros_(_linear(self.mlp, 2).weight)

    def initialise_around(self, value: float) -> None:
        """Initialise so that every embedding is zero and learns fast how other values differ from `value`.

        Sinusoids of two guidance scales are nearly the same. With those of `value` subtracted, hidden activations are
        zero at `value` and grow with the distance from it. Adam moves a weight by about the learning rate in each step,
        whatever the size of the gradient, so the embedding moves in proportion to the hidden activations.
        """
        first, last = _linear(self.mlp, 0), _linear(self.mlp, 2)
        nn.init.normal_(first.weight, std=1.0)
        with torch.no_grad():
            first.bias.copy_(-first.weight @ self._sinusoids(first.weight.new_tensor([value]))[0])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class Modulation(nn.Sequential):
    """adaLN's map from the condition (B, in_dim) to shifts, scales and gates (B, out_dim); weights start at zero."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(nn.GELU(approximate="tanh"), Linear(in_dim, out_dim))

    def initialise(self) -> None:
        """Initialise the weights, in place."""
        nn.init.zeros_(_linear(self, 1).weight)


class PatchEmbedder(nn.Module):
    """Non-overlapping patches to tokens: (B, C, H, W) -> (B, T, dim)."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) -> tokens (B, patches, dim), row by row."""
        return self.proj(latents).flatten(2).transpose(1, 2)

    def initialise(self) -> None:
        """Initialise the weights, in place."""
        nn.init.xavier_uniform_(self.proj.weight.flatten(1))


class CaptionEmbedder(nn.Module):
    """Projects caption tokens to the network's width: (B, L, in_dim) -> (B, L, dim)."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.y_proj = Mlp(in_dim, dim)

    def forward(self, captions: Tensor) -> Tensor:
        """(B, L, channels) -> (B, L, dim)."""
        return self.y_proj(captions)

    def initialise(self) -> None:
        """Initialise the weights, in place."""
        self.y_proj.initialise()


class NormLinear(nn.Sequential):
    """LayerNorm and a linear map: (B, T, in_dim) -> (B, T, out_dim)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(layer_norm(in_dim), Linear(in_dim, out_dim, bias=False))

    def forward(self, input: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        norm, linear = cast(tuple[nn.LayerNorm, Linear], tuple(self))
        return linear(normalise(input, norm.weight, dtype=linear.dtype))


def _linear(layers: nn.Sequential, index: int) -> Linear:
    return cast(Linear, layers[index])
