"""Consistency tuning, with intervals proportional to sigma (ECT, arXiv 2406.14548)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.objectives.pairs import PairLoss


@dataclass(frozen=True)
class Tuning:
    """Pairs (t, r) with r / t = 1 - (1 - gap_ratio) n(t) / 2^a and n(t) = 1 + k sigmoid(-t).

    That is the paper's mapping function with q = 2 and b = 1. The number a of halvings rises from 0 to `halvings` in
    equal intervals of the training, so that a teacher's denoiser turns into a consistency function. The paper's
    recipe: gap_ratio 0.5, k 8, weights 1 / (t - r), and the student itself as the target.

    Attributes:
        pair_loss: the loss of a pair.
        gap_ratio: r / t at the start, at high noise; between 0 and 1.
        halvings: how often the interval is halved.
        widening: k, how much wider than at high noise the interval is at low noise.
        inverse_gap_weight: whether a pair weighs 1 / (t - r).
        sigma_min: the boundary, where the consistency function is the identity.
        snap_below: pairs with r below this end at the boundary.
    """

    pair_loss: PairLoss
    gap_ratio: float
    halvings: int
    widening: float
    inverse_gap_weight: bool
    sigma_min: float
    snap_below: float
    uses_target = True

    @property
    def lowest_sigma(self) -> float:
        """The lowest sigma from which the first interval fits above sigma_min."""
        return self.sigma_min / self.gap_ratio

    def __call__(self, networks: Networks, clean: Tensor, noise: Tensor, sigma: Tensor, progress: float) -> Tensor:
        """Losses (B,); see `Objective`."""
        sigma_next = self.sigma_next(sigma, progress)
        losses = self.pair_loss(networks, clean, noise, sigma, sigma_next)
        return losses / (sigma - sigma_next) if self.inverse_gap_weight else losses

    def sigma_next(self, sigma: Tensor, progress: float) -> Tensor:
        """The sigma r (B,) of the pairs (t, r) that start at t = sigma (B,)."""
        halved = int(progress * (self.halvings + 1))
        share = (1 - self.gap_ratio) / 2**halved
        sigma_next = sigma * (1 - share * (1 + self.widening * torch.sigmoid(-sigma)))
        return torch.where(sigma_next < self.snap_below, torch.full_like(sigma, self.sigma_min), sigma_next)
