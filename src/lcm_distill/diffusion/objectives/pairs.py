"""Consistency distillation on pairs: two points of one trajectory of the teacher must map to the same sample."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.samplers import Solver

Distance = Callable[[Tensor, Tensor], Tensor]
"""(prediction, target), each (B, C, H, W) -> (B,)."""


def l2(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of each sample, (B,)."""
    return (prediction - target).square().mean(dim=(1, 2, 3))


def pseudo_huber(c: float) -> Distance:
    """The pseudo-Huber distance sqrt(d^2 + c^2) - c (arXiv 2310.14189), d the root mean squared error of each sample.

    It is quadratic below `c` and linear above, which bounds the gradient of outliers.
    """

    def distance(prediction: Tensor, target: Tensor) -> Tensor:
        return (l2(prediction, target) + c**2).sqrt() - c

    return distance


@dataclass(frozen=True)
class PairLoss:
    """The distance between the student's prediction at sigma and the target's at the next, lower sigma.

    Attributes:
        solver: follows the teacher's trajectory from sigma to the next sigma.
        distance: compares the two predictions.
    """

    solver: Solver
    distance: Distance

    def __call__(self, networks: Networks, clean: Tensor, noise: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Consistency distillation (arXiv 2303.01469, eq. 7), unweighted.

        Args:
            clean, noise: (B, C, H, W); noise is standard normal.
            sigma, sigma_next: (B,), sigma_next < sigma.

        Returns:
            (B,).
        """
        noisy = clean + sigma.view(-1, 1, 1, 1) * noise
        with torch.no_grad():
            target = networks.target(self.solver(networks.teacher, noisy, sigma, sigma_next), sigma_next)
        return self.distance(networks.student(noisy, sigma), target)
