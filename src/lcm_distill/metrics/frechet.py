# The functions of torch.linalg have no types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# PyTorch declares some of its functions without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Fréchet distance between the Gaussians of two feature sets (arXiv 1706.08500, eq. 6)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcm_distill.core.errors import UserError
from lcm_distill.core.words import counted


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance alone, as published reference statistics have them.

    Attributes:
        mu: (D,), float64. sigma: (D, D), float64. count: vectors that they are of; None if that is not known.
    """

    mu: Tensor
    sigma: Tensor
    count: int | None = None

    def mean(self) -> Tensor:
        """(D,), float64."""
        return self.mu

    def covariance(self) -> Tensor:
        """(D, D), float64."""
        return self.sigma


@dataclass
class Moments:
    """Running count, sum and outer-product sum of feature vectors, in float64; two can be added.

    Attributes:
        count: vectors seen. total: (D,). outer: (D, D), the sum of x x^T.
    """

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Moments of features (N, D), any float dtype."""
        features = features.double()
        return cls(len(features), features.sum(0), features.T @ features)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def __iadd__(self, other: "Moments") -> "Moments":
        self.count += other.count
        self.total += other.total
        self.outer += other.outer
        return self

    def mean(self) -> Tensor:
        """(D,), float64."""
        return self.total / self.count

    def covariance(self) -> Tensor:
        """(D, D), float64, unbiased as numpy's `cov` has it.

        Raises:
            UserError: fewer than two vectors were seen.
        """
        if self.count < 2:
            raise UserError(f"a Fréchet distance needs at least 2 images on either side, there are {self.count}")
        mean = self.mean()
        return (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)


def require_full_rank(moments: Moments | Gaussian) -> None:
    """Hold the number of vectors, where it is known, to what a covariance of their width takes.

    Raises:
        UserError: there are so few that the covariance cannot have full rank, and a distance says little.
    """
    width = len(moments.total if isinstance(moments, Moments) else moments.mu)
    if moments.count is not None and moments.count <= width:
        raise UserError(
            f"{counted(moments.count, 'image is', 'images are')} too few for a Fréchet distance of "
            f"{counted(width, 'feature')}: their covariance "
            f"has rank {max(moments.count - 1, 0):,} at most, so the distance tells their number first of all; take at "
            f"least {width + 1:,} (the field takes 30,000)"
        )


def frechet_distance(a: Moments | Gaussian, b: Moments | Gaussian) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2).

    With S = L L^T, the trace of the root is the sum of the singular values of L_a^T L_b. No eigenvalue is rooted that
    rounding made: the result stays exact when a covariance is rank-deficient.
    """
    covariance_a, covariance_b = a.covariance(), b.covariance()
    cross = torch.linalg.svdvals(_factor(covariance_a).T @ _factor(covariance_b)).sum()
    means = (a.mean() - b.mean()).square().sum()
    return float(means + covariance_a.trace() + covariance_b.trace() - 2 * cross)


def _factor(covariance: Tensor) -> Tensor:
    """L (D, rank) with L L^T = covariance: Cholesky's, or from the eigenvalues that are not zero to rounding."""
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return lower
    values, vectors = torch.linalg.eigh(covariance)
    real = values > values.amax() * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, real] * values[real].sqrt()
