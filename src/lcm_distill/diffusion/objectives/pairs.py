"""Consistency distillation: two points of one trajectory of the teacher must map to the same start."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.samplers import Solver

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


@dataclass(frozen=True)
class PairLoss:
    """The distance between what the student says at a noisier point and the target at a nearer one.

    Attributes:
        solver: takes the teacher from the one to the other.
        distance: compares the two answers.
    """

    solver: Solver
    distance: Distance

    def __call__(self, networks: Networks, clean: Tensor, noise: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Consistency distillation (arXiv 2303.01469, eq. 7), unweighted.

        Args:
            clean, noise: (B, C, H, W); noise is standard normal.
            sigma, sigma_next: (B,), the noisier and the nearer level of each pair.

        Returns:
            (B,).
        """
        noisy = clean + sigma.view(-1, 1, 1, 1) * noise
        with torch.no_grad():
            goal = networks.target(self.solver(networks.teacher, noisy, sigma, sigma_next), sigma_next)
        return self.distance(networks.student(noisy, sigma), goal)
