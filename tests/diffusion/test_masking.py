"""Masked steps see a random subset of the patches, and only that counts."""

import pytest
import torch

from lcm_distill.diffusion.masking import kept_patches, patch_mask
from lcm_distill.diffusion.objectives.denoising import denoising_loss


def test_every_patch_is_kept_equally_often():
    kept = kept_patches(torch.randn(4000, 16, generator=torch.Generator().manual_seed(0)), 0.75)
    assert kept.shape == (4000, 4)
    assert (kept.diff(dim=1) > 0).all()
    counts = torch.bincount(kept.flatten(), minlength=16) / 4000
    assert counts.tolist() == pytest.approx([0.25] * 16, abs=0.03)


def test_seen_values_are_those_of_the_kept_patches():
    seen = patch_mask(torch.tensor([[1, 2]]), side=2, patch_size=2)
    assert seen[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_masked_patches_do_not_count():
    clean, sigma = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.tensor([0.5, 2.0], dtype=torch.float64)
    seen = patch_mask(torch.tensor([[0], [3]]), side=2, patch_size=2).double()
    off = torch.where(seen.bool(), 2.0, 100.0)
    loss = denoising_loss(lambda x, sigma: clean + off, clean, torch.randn_like(clean), sigma, 0.9, seen)
    weight = (sigma**2 + 0.81) / (sigma * 0.9) ** 2
    assert torch.allclose(loss, 4 * weight)
    everything = torch.ones_like(seen)
    arguments = (lambda x, sigma: 0.3 * x, clean, clean.flip(0), sigma, 0.9)
    assert torch.allclose(denoising_loss(*arguments, everything), denoising_loss(*arguments))
