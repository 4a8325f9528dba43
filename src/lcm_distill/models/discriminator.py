"""A discriminator of latents: small heads on what a frozen teacher computes (LADD, arXiv 2403.12015)."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcm_distill.models.microdit import MicroDiT

HEADS = 4
"""Blocks with a head, at most."""
HIDDEN = 256
"""Hidden width of a head."""


class Discriminator(nn.Module):
    """A head for each of several blocks. A head sees one token at a time.

    Args:
        dim: width of the tokens.
        heads: number of blocks.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.dim = dim
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1)) for _ in range(heads)
        )

    def forward(self, *tokens: Tensor) -> Tensor:
        """Tokens (B, T, dim) after each block -> logits (B, heads * T), float32, high for data."""
        logits = [
            head(functional.layer_norm(after.float(), (self.dim,))).squeeze(-1)
            for head, after in zip(self.heads, tokens, strict=True)
        ]
        return torch.cat(logits, dim=1)


def blocks_with_heads(network: MicroDiT) -> list[nn.Module]:
    """Blocks of the backbone in even intervals, the last among them."""
    depth = len(network.blocks)
    heads = min(HEADS, depth)
    return [network.blocks[depth * (number + 1) // heads - 1] for number in range(heads)]


@contextmanager
def tokens_after(blocks: Sequence[nn.Module]) -> Generator[list[Tensor]]:
    """Collects the residual stream (B, T, dim), float32, after each of the blocks in a call of their network."""
    tokens: list[Tensor] = []

    def collect(_: nn.Module, __: Any, outputs: tuple[Tensor, ...]) -> None:
        tokens.append(outputs[0])

    hooks = [block.register_forward_hook(collect) for block in blocks]
    try:
        yield tokens
    finally:
        for hook in hooks:
            hook.remove()
