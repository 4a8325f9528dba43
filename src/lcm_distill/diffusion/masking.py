"""Deferred patch masking (arXiv 2407.15811): which patches a training step keeps."""

import torch
from torch import Tensor


def kept_patches(draws: Tensor, mask_ratio: float) -> Tensor:
    """Indices of the patches that are not masked, (B, K) int64, rising; every subset of K is equally likely.

    Args:
        draws: (B, T), one per patch, independent and identically distributed with a continuous distribution.
        mask_ratio: share of the T patches that is masked, in [0, 1).
    """
    count = round(draws.shape[1] * (1 - mask_ratio))
    return draws.argsort(dim=1)[:, :count].sort(dim=1).values


def patch_mask(kept: Tensor, side: int, patch_size: int) -> Tensor:
    """The mask of the kept patches: 1 inside and 0 elsewhere, float32 (B, 1, H, W), H = W = side * patch_size.

    Args:
        kept: (B, K), indices of patches in a grid of side x side, row by row.
    """
    grid = torch.zeros(len(kept), side * side, device=kept.device).scatter(1, kept, 1.0)
    return grid.view(-1, 1, side, side).repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)
