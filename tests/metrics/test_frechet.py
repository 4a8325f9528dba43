"""The Fréchet distance against its closed form."""

import pytest
import torch

from lcm_distill.core.errors import UserError
from lcm_distill.metrics.frechet import Gaussian, Moments, frechet_distance, require_full_rank


def features(count, dim, seed, rank=None):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(count, rank or dim, generator=generator, dtype=torch.float64)
    return draws @ torch.randn(rank or dim, dim, generator=generator, dtype=torch.float64)


def test_same_features_are_at_distance_zero():
    moments = Moments.of(features(500, 24, 0))
    assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-8 * float(moments.covariance().trace()))


def test_shift_and_scale_have_a_closed_form():
    x = features(400, 16, 1)
    shifted, scaled = Moments.of(x + 0.5), Moments.of(3 * x)
    a = Moments.of(x)
    assert frechet_distance(a, shifted) == pytest.approx(16 * 0.25, rel=1e-9)
    exact = float(4 * a.mean().square().sum() + 4 * a.covariance().trace())
    assert frechet_distance(a, scaled) == pytest.approx(exact, rel=1e-9)


def test_rank_deficient_covariances():
    a = Moments.of(features(300, 32, 2, rank=5))
    doubled = Moments(a.count, 2 * a.total, 4 * a.outer)
    exact = float(a.mean().square().sum() + a.covariance().trace())
    assert frechet_distance(a, doubled) == pytest.approx(exact, rel=1e-6)


def commuting(variances, seed):
    """A Gaussian whose covariance has these eigenvalues, in directions that the seed draws."""
    generator = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(len(variances), len(variances), generator=generator, dtype=torch.float64))
    return Gaussian(torch.zeros(len(variances), dtype=torch.float64), (axes * variances) @ axes.T)


def low_rank(dim, rank):
    return torch.where(torch.arange(dim) < rank, 1.0 / (1 + torch.arange(dim)), 0.0).double()


@pytest.mark.parametrize("dim", [256, pytest.param(2048, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("rank_a", "rank_b"), [(1.0, 1.0), (0.02, 1.0), (1.0, 0.02), (0.25, 0.25), (0.02, 0.25), (0.997, 1.0)]
)
def test_covariances_that_commute_have_a_closed_form(dim, rank_a, rank_b):
    a, b = low_rank(dim, round(rank_a * dim)), 1.3 * low_rank(dim, round(rank_b * dim))
    exact = float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(commuting(a, 5), commuting(b, 5)) == pytest.approx(exact, rel=1e-7)


def test_mean_and_covariance_alone_give_the_same():
    a, b = Moments.of(features(300, 16, 6)), Moments.of(features(200, 16, 7))
    alone = frechet_distance(Gaussian(a.mean(), a.covariance()), Gaussian(b.mean(), b.covariance()))
    assert alone == pytest.approx(frechet_distance(a, b), rel=1e-12)


def test_too_few_for_the_rank_is_explained():
    require_full_rank(Moments.of(features(17, 16, 0)))
    with pytest.raises(UserError, match=r"16 images are too few .* of 16 features: .* rank 15 at most.* least 17"):
        require_full_rank(Moments.of(features(16, 16, 0)))


def test_moments_of_parts_add_up():
    x = features(331, 12, 3).float()
    merged = Moments.of(x[:7])
    for part in (x[7:100], x[100:101], x[101:140], x[140:142], x[142:300], x[300:]):
        merged = merged + Moments.of(part)
    whole = Moments.of(x)
    assert merged.count == 331
    assert torch.allclose(merged.mean(), x.double().mean(0), rtol=1e-10)
    assert torch.allclose(merged.covariance(), torch.cov(x.double().T), rtol=1e-9, atol=1e-10)
    assert torch.allclose(merged.covariance(), whole.covariance(), rtol=1e-10)


def test_too_few_images_are_explained():
    one = Moments.of(features(1, 4, 0))
    with pytest.raises(UserError, match="at least 2 images"):
        frechet_distance(one, one)
