"""A network's transformer blocks, which are the units of sharding and of activation checkpointing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from lcm_distill.models import MicroDiT


def transformer_blocks(network: MicroDiT) -> list[nn.Module]:
    """The blocks over image tokens, which hold nearly all weights and activations."""
    return [*network.patch_mixer, *network.blocks]


def checkpoint_activations(blocks: Sequence[nn.Module]) -> None:
    """Keep only a block's inputs for the backward pass and recompute its activations there (arXiv 1604.06174).

    Changes the blocks in place. Without gradients a block computes as before.
    """
    for block in blocks:
        _checkpoint_activations(block)


def _checkpoint_activations(block: nn.Module) -> None:
    forward = block.forward

    def checkpointed(*inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        # No block uses random numbers, so there is no generator state to restore.
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)

    block.forward = checkpointed
