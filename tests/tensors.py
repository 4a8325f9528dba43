"""Comparisons of tensors."""

from torch import Tensor


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The norm of a difference, relative to that of `theirs`, in float64."""
    ours, theirs = ours.double(), theirs.double()
    return float((ours - theirs).norm() / theirs.norm())
