"""Fréchet distance between the Gaussians of two feature sets (arXiv 1706.08500, eq. 6)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcm_distill.errors import UserError


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

    def mean(self) -> Tensor:
        """(D,), float64."""
        return self.total / self.count

    def covariance(self) -> Tensor:
        """(D, D), float64, unbiased as numpy's `cov` has it.

        Raises:
            UserError: fewer than two vectors were seen.
        """
        if self.count < 2:
            raise UserError(f"a Fréchet distance needs at least 2 pictures on either side, there are {self.count}")
        mean = self.mean()
        return (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2).

    The trace of the root comes from the eigenvalues of the symmetric S_a^1/2 S_b S_a^1/2, which S_a S_b shares;
    it stays exact when a covariance is rank-deficient.
    """
    covariance_a, covariance_b = a.covariance(), b.covariance()
    values, vectors = torch.linalg.eigh(covariance_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    means = (a.mean() - b.mean()).square().sum()
    return float(means + covariance_a.trace() + covariance_b.trace() - 2 * cross)
