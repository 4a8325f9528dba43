"""How far two batches are apart, sample by sample."""

from collections.abc import Callable

from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two batches (B, C, H, W) -> (B,)."""


def l2(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean squared difference over each sample's values."""
    return (ours - theirs).square().mean(dim=(1, 2, 3))


def pseudo_huber(c: float) -> Distance:
    """sqrt(d^2 + c^2) - c (arXiv 2310.14189), d the root mean square over each sample's values.

    Squared below `c`, absolute above, so that a few far samples do not decide the gradient.
    """

    def distance(ours: Tensor, theirs: Tensor) -> Tensor:
        return (l2(ours, theirs) + c**2).sqrt() - c

    return distance
