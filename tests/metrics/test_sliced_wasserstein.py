"""MIND against closed forms: shifts, scales, and sets of different sizes."""

import pytest
import torch

from lcm_distill.metrics.sliced_wasserstein import monge_inception_distance


def features(count: int, seed: int, dimensions: int = 16) -> torch.Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def test_equal_sets_are_nowhere_apart_and_the_order_of_rows_does_not_matter():
    a, b = features(300, 0), features(300, 1) + 0.5
    assert monge_inception_distance(a, a) == 0
    order = torch.randperm(300, generator=torch.Generator().manual_seed(2))
    assert monge_inception_distance(a, a[order]) == 0
    assert monge_inception_distance(a[order], b) == pytest.approx(monge_inception_distance(a, b), rel=1e-12)
    assert monge_inception_distance(b, a) == pytest.approx(monge_inception_distance(a, b), rel=1e-12)


def test_a_shift_counts_with_three_times_its_square():
    """Over D in each direction on average, times 3 D."""
    a, shift = features(200, 0), torch.linspace(-1, 2, 16)
    assert monge_inception_distance(a, a + shift) == pytest.approx(3 * float(shift.square().sum()), rel=0.1)
    assert monge_inception_distance(a, a + 2 * shift) == pytest.approx(
        4 * monge_inception_distance(a, a + shift), rel=1e-5
    )


def test_shifted_gaussians_are_their_shift_apart():
    a, b = features(20_000, 3), features(20_000, 4) + 1.0
    assert monge_inception_distance(a, b) == pytest.approx(3 * 16, rel=0.1)


def test_a_scale_counts_by_the_difference_of_standard_deviations():
    """Each projection of N(0, s^2 I) is N(0, s^2), so W2^2 is (2 - 1)^2 and the distance 3 D of it."""
    a = features(20_000, 5)
    assert monge_inception_distance(a, 2 * a) == pytest.approx(3 * 16, rel=0.05)


def test_sets_of_different_sizes_are_compared_whole():
    """On a line the directions are 1 and -1: from 1/3 to 2/3 of the mass the quantiles differ by a half."""
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [0.5], [1.0]])
    assert monge_inception_distance(a, b) == pytest.approx(3 * 0.5**2 / 3)
    x = features(40, 6)
    assert monge_inception_distance(x, torch.cat([x, x, x])) == pytest.approx(0, abs=1e-12)
