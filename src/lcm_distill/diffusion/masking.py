"""Which patches a masked training step sees (deferred patch masking, arXiv 2407.15811)."""

import torch
from torch import Tensor


def kept_patches(draws: Tensor, mask_ratio: float) -> Tensor:
    """Numbers of the patches that are not masked, (B, K) int64, rising; every subset of K is equally likely.

    Args:
        draws: (B, T), independent and of one continuous distribution, one a patch.
        mask_ratio: share of the T patches that is masked, in [0, 1).
    """
    count = round(draws.shape[1] * (1 - mask_ratio))
    return draws.argsort(dim=1)[:, :count].sort(dim=1).values


def seen_values(kept: Tensor, side: int, patch_size: int) -> Tensor:
    """1 in the patches that are not masked and 0 elsewhere, float32 (B, 1, H, W), H = W = side * patch_size.

    Args:
        kept: (B, K), patches by number in rows of a grid of side x side.
    """
    grid = torch.zeros(len(kept), side * side, device=kept.device).scatter(1, kept, 1.0)
    return grid.view(-1, 1, side, side).repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)
