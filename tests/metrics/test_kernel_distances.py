"""Kernel distances against sums over all pairs."""

import pytest
import torch

from lcm_distill.metrics.kernel_distances import clip_maximum_mean_discrepancy, kernel_inception_distance


def features(count, seed, shift=0.0):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_kid_of_all_images_is_the_unbiased_estimate():
    a, b = features(40, 0), features(40, 1, 0.3)

    def kernel(x, y):
        return (float(x @ y) / 5 + 1) ** 3

    within = sum(kernel(s[i], s[j]) for s in (a, b) for i in range(40) for j in range(40) if i != j) / (40 * 39)
    between = sum(kernel(x, y) for x in a for y in b) / 1600
    assert kernel_inception_distance(a, b) == pytest.approx(within - 2 * between, rel=1e-9)


def test_kid_of_one_distribution_is_about_zero_and_subsets_are_fixed():
    a, b, far = features(3000, 2), features(2500, 3), features(2500, 4, 1.0)
    assert abs(kernel_inception_distance(a, b)) < 0.02
    assert kernel_inception_distance(a, far) > 1
    assert kernel_inception_distance(a, b) == kernel_inception_distance(a, b)


def test_cmmd_is_the_biased_estimate_between_unit_vectors():
    a, b = features(30, 5), features(20, 6, 0.5)
    x, y = (s / s.norm(dim=1, keepdim=True) for s in (a, b))

    def mean(p, q):
        return torch.exp(-torch.cdist(p, q).square() / 200).mean()

    exact = 1000 * float(mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert clip_maximum_mean_discrepancy(3 * a, b) == pytest.approx(exact, rel=1e-6)
    assert clip_maximum_mean_discrepancy(a, 7 * a) == pytest.approx(0, abs=1e-9)
