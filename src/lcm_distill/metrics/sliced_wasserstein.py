# PyTorch declares some of its functions without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""MIND, the Monge inception distance (arXiv 2605.06797): how far sorted projections of two feature sets are apart."""

import torch
from torch import Tensor

from lcm_distill.core.randomness import normal

DIRECTIONS, SCALE = 1_000, 3.0
"""Number of random directions, and the paper's alpha over the dimensions of the features."""
BLOCK = 100
"""Directions that are projected on at a time."""


def monge_inception_distance(a: Tensor, b: Tensor) -> float:
    """Mean squared Wasserstein-2 distance of projections on unit directions, which a seed of 0 draws, times 3 D.

    Two sets that are shifted against each other are 3 times the square of the shift apart, in the mean over directions.
    A projection's distance is exact: between sets of equal size it is that of the sorted values, as the paper has it,
    and between others that of the quantile functions; torch-fidelity leaves out a random part of the larger set there.

    Args:
        a, b: features (N, D) and (M, D).
    """
    a, b, dimensions = a.double(), b.double(), a.shape[1]
    ours, theirs, widths = _levels(len(a), len(b))
    total = 0.0
    for start in range(0, DIRECTIONS, BLOCK):
        draws = normal(0, "mind", 0, range(start, min(start + BLOCK, DIRECTIONS)), (dimensions,)).double()
        directions = torch.nn.functional.normalize(draws, dim=1).T
        left, right = ((features @ directions).sort(dim=0).values for features in (a, b))
        total += float((widths @ (left[ours] - right[theirs]).square()).sum())
    return SCALE * dimensions * total / DIRECTIONS


def _levels(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the quantile functions of n and of m values are constant: the places of the two values, and the widths."""
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # in units of 1 / (n m)
    widths = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    return (ends - 1) // m, (ends - 1) // n, widths
