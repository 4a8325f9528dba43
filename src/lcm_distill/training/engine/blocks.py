"""A transformer's blocks one by one: which they are, and activations that are computed again."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lcm_distill.models import MicroDiT


def blocks_of(network: MicroDiT) -> list[nn.Module]:
    """The blocks over image tokens, which hold nearly all weights and activations."""
    return [*network.patch_mixer, *network.blocks]


def recompute_activations(blocks: Sequence[nn.Module]) -> None:
    """Keep a block's inputs alone for the backward pass, and compute the rest again in it (arXiv 1604.06174)."""
    for block in blocks:
        _recompute_activations(block)


def _recompute_activations(block: nn.Module) -> None:
    forward = block.forward

    def saving(*inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        # Nothing in a block draws random numbers.
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)

    block.forward = saving
