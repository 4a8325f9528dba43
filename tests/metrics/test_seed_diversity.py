"""Diversity over seeds, where it is known."""

import pytest
import torch

from lcm_distill.metrics.seed_diversity import seed_diversity


def test_seeds_that_differ_by_known_distances():
    samples = torch.zeros(3, 2, 2, 1)
    samples[1] = torch.tensor([[[3.0], [4.0]], [[0.0], [0.0]]])  # 5 and 0 from the first seed, and from the third
    assert seed_diversity(samples) == pytest.approx((2.5 + 0 + 2.5) / 3)


def test_captions_count_alone_and_not_the_differences_between_them():
    assert seed_diversity(torch.randn(1, 7, 16).expand(4, 7, 16)) == 0


def test_gaussian_samples():
    noise = torch.randn(6, 200, 512, generator=torch.Generator().manual_seed(0))
    expected = 2**0.5 * 511.5**0.5  # the difference's standard deviation, and the mean of a chi of 512 dimensions
    assert seed_diversity(noise) == pytest.approx(expected, rel=2e-3)


def test_one_seed_is_refused():
    with pytest.raises(ValueError, match="one seed"):
        seed_diversity(torch.zeros(1, 2, 3))
