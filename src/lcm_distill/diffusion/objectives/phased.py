"""Consistency within phases of the trajectory: Phased Consistency Models (PCM, arXiv 2405.18407)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcm_distill.core.device import to_device
from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.objectives.pairs import PairLoss
from lcm_distill.diffusion.preconditioning import Denoiser, jump_to


@dataclass(frozen=True)
class Phased:
    """Pairs within a phase, both of whose points must map to the phase's lower edge.

    A phase holds the sigmas above its lower edge up to its upper one. Pairs never cross an edge, so that phases are
    learnt independently and sampling from edge to edge adds no noise. Without inner edges this is plain consistency
    distillation.

    Attributes:
        pair_loss: the loss of a pair.
        gap_ratio: next sigma over sigma of a pair, unless the phase's lower edge is higher.
        edges: lower edges of the phases, rising; the first is sigma_min.
    """

    pair_loss: PairLoss
    gap_ratio: float
    edges: tuple[float, ...]
    uses_target = True

    @property
    def lowest_sigma(self) -> float:
        """The lowest sigma from which a pair fits above sigma_min."""
        return self.edges[0] / self.gap_ratio

    def __call__(self, networks: Networks, clean: Tensor, noise: Tensor, sigma: Tensor, progress: float) -> Tensor:
        """Losses (B,); see `Objective`."""
        edge = self.lower_edge(sigma)
        sigma_next = torch.maximum(sigma * self.gap_ratio, edge)

        def within_phase(function: Denoiser) -> Denoiser:
            return lambda x, at: jump_to(function, x, at, edge, self.edges[0])

        phased = networks._replace(student=within_phase(networks.student), target=within_phase(networks.target))
        return self.pair_loss(phased, clean, noise, sigma, sigma_next)

    def lower_edge(self, sigma: Tensor) -> Tensor:
        """The lower edge (B,) of each sigma's (B,) phase; an edge itself belongs to the phase below."""
        edges = to_device(torch.tensor(self.edges, dtype=sigma.dtype), sigma.device)
        return edges[(torch.searchsorted(edges, sigma) - 1).clamp(min=0)]
