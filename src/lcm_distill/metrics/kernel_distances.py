# The types of Tensor.split are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# PyTorch declares some of its functions without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Kernel distances between feature sets: KID (arXiv 1801.01401) and CMMD (arXiv 2401.09603)."""

import torch
from torch import Tensor

from lcm_distill.core.randomness import permutation

SUBSETS, SUBSET_SIZE = 100, 1_000
"""Of KID, as torch-fidelity and clean-fid have it."""
CMMD_BANDWIDTH, CMMD_SCALE = 10.0, 1_000.0
ROWS = 500
"""Kernel matrices are summed in blocks of so many rows."""


def kernel_inception_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3, mean over subsets of both sets, which a seed of 0 draws.

    Args:
        a, b: features (N, D); where there are fewer than a subset is large, all of the smaller set are taken.
    """
    size = min(SUBSET_SIZE, len(a), len(b))
    total = 0.0
    for subset in range(SUBSETS):
        x = a[permutation(0, "kid-a", subset, len(a))[:size]].double()
        y = b[permutation(0, "kid-b", subset, len(b))[:size]].double()
        total += _unbiased(_cubic(x, x), _cubic(y, y), _cubic(x, y))
    return total / SUBSETS


def clip_maximum_mean_discrepancy(a: Tensor, b: Tensor) -> float:
    """Squared MMD with a Gaussian kernel of bandwidth 10 between unit vectors, diagonals included, times 1,000.

    Args:
        a, b: features (N, D), scaled to length 1 here.
    """
    a, b = (torch.nn.functional.normalize(features.double(), dim=1) for features in (a, b))
    return CMMD_SCALE * (_mean_gaussian(a, a) + _mean_gaussian(b, b) - 2 * _mean_gaussian(a, b))


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _unbiased(xx: Tensor, yy: Tensor, xy: Tensor) -> float:
    count = len(xx)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (count * (count - 1))
    return float(within - 2 * xy.mean())


def _mean_gaussian(x: Tensor, y: Tensor) -> float:
    """Mean of exp(-|x - y|^2 / (2 bandwidth^2)) over all pairs of unit vectors."""
    total = sum(float(torch.exp((rows @ y.T - 1) / CMMD_BANDWIDTH**2).sum()) for rows in x.split(ROWS))
    return total / (len(x) * len(y))
