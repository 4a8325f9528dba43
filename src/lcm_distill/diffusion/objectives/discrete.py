"""Consistency distillation on a fixed grid of sigmas, as in Latent Consistency Models (LCM, arXiv 2310.04378)."""

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
        pair_loss: the loss of a pair.
        grid: (N,), float64, rising; EDM's schedule without its 0.
        skip: k, from 1 to N - 1.
    """

    pair_loss: PairLoss
    grid: Tensor
    skip: int
    uses_target = True

    @property
    def lowest_sigma(self) -> float:
        """The highest grid point from which no pair starts; sigmas above are rounded up to points that start one."""
        rising = cast(list[float], self.grid.tolist())  # pyright: ignore[reportUnknownMemberType]
        return rising[self.skip - 1]

    def __call__(self, networks: Networks, clean: Tensor, noise: Tensor, sigma: Tensor, progress: float) -> Tensor:
        """Losses (B,) of pairs that start at `sigma` rounded up to the grid; see `Objective`."""
        return self.pair_loss(networks, clean, noise, *self.pair(sigma))

    def pair(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The grid points t_(n+k) and t_n of drawn sigmas (B,), each (B,).

        Because of rounding up, sigmas spread like EDM's schedule fall on each of its N - k starts equally often.
        """
        grid = to_device(self.grid.to(sigma.dtype), sigma.device)
        start = torch.searchsorted(grid, sigma).clamp(self.skip, len(grid) - 1)
        return grid[start], grid[start - self.skip]
