"""Consistency distillation on a fixed grid of noise levels, as in Latent Consistency Models (arXiv 2310.04378)."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from lcm_distill.core.device import to_device
from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.objectives.pairs import PairLoss


@dataclass(frozen=True)
class Discrete:
    """Pairs of grid points t_(n+k) and t_n, one solver step apart (the skipping step of section 4.3).

    Attributes:
        pair_loss: compares a pair's points.
        grid: (N,), float64, rising; EDM's schedule without its 0.
        skip: k, from 1 to N - 1.
    """

    pair_loss: PairLoss
    grid: Tensor
    skip: int
    uses_target = True

    @property
    def lowest_sigma(self) -> float:
        """The highest level that is too low to start a pair; every level above is rounded up to one that is not."""
        rising = cast(list[float], self.grid.tolist())  # pyright: ignore[reportUnknownMemberType]
        return rising[self.skip - 1]

    def __call__(self, networks: Networks, clean: Tensor, noise: Tensor, sigma: Tensor, progress: float) -> Tensor:
        """Losses (B,) of pairs that start at the grid's next level from `sigma` up; see `Objective`."""
        return self.pair_loss(networks, clean, noise, *self.pair(sigma))

    def pair(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The noisier and the nearer grid level for drawn levels (B,).

        Rounding up makes levels drawn evenly over the schedule fall on all of its N - k starts equally often.
        """
        grid = to_device(self.grid.to(sigma.dtype), sigma.device)
        start = torch.searchsorted(grid, sigma).clamp(self.skip, len(grid) - 1)
        return grid[start], grid[start - self.skip]
