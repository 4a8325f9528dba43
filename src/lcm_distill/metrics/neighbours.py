# The types of Tensor.split are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# PyTorch declares some of its functions without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""How two feature sets cover each other, by balls that reach to each vector's k-th neighbour.

Precision and recall (arXiv 1904.06991, k = 3), density and coverage (arXiv 2002.09797, k = 5).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 2_000
"""Distances are computed in blocks of this many rows."""


def precision(generated: Tensor, real: Tensor, k: int = 3) -> float:
    """Share of generated vectors that lie in the ball of a real one.

    Args:
        generated, real: features (N, D).
    """
    radii = _radii(real, k)
    return _mean((distances <= radii).any(dim=1) for distances in _distances(generated, real))


def recall(generated: Tensor, real: Tensor, k: int = 3) -> float:
    """Share of real vectors that lie in the ball of a generated one."""
    return precision(real, generated, k)


def density(generated: Tensor, real: Tensor, k: int = 5) -> float:
    """In how many real balls a generated vector lies, mean over these, over k."""
    radii = _radii(real, k)
    return _mean((distances < radii).sum(dim=1) for distances in _distances(generated, real)) / k


def coverage(generated: Tensor, real: Tensor, k: int = 5) -> float:
    """Share of real vectors whose ball holds a generated one."""
    nearest = torch.cat([distances.amin(dim=1) for distances in _distances(real, generated)])
    return float((nearest < _radii(real, k)).double().mean())


def _radii(features: Tensor, k: int) -> Tensor:
    """Distance of each vector to its k-th neighbour, itself not counted."""
    k = min(k, len(features) - 1)
    return torch.cat([distances.kthvalue(k + 1, dim=1).values for distances in _distances(features, features)])


def _distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    return (torch.cdist(rows, b) for rows in a.split(ROWS))


def _mean(blocks: Iterator[Tensor]) -> float:
    return float(torch.cat([block.double() for block in blocks]).mean())
