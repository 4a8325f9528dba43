"""The distribution-matching term of a training: the critic, and what a step adds to the loss."""

import numpy as np
import torch
from torch import Tensor

from lcm_distill.config import Config
from lcm_distill.core.device import to_device
from lcm_distill.core.randomness import integer, normal
from lcm_distill.diffusion.guidance import both_branches
from lcm_distill.diffusion.noise import lognormal_sigmas
from lcm_distill.diffusion.objectives.denoising import denoising_loss
from lcm_distill.diffusion.objectives.distribution_matching import judge, last_alone, matching_loss
from lcm_distill.diffusion.preconditioning import Network, consistency_function, edm_denoiser
from lcm_distill.diffusion.samplers import sample_consistency


class Matching:
    """Draws as the student would, and tells student and critic what to make of it.

    Args:
        critic: learns to denoise the student's drawings, each at the guidance scale it was drawn for. It starts as the
            teacher, and counts by how far it has moved from there, on top of guidance from the middle of the range.
    """

    def __init__(
        self, config: Config, student: Network, teacher: Network, critic: Network, device: torch.device
    ) -> None:
        self.config, self.student, self.teacher, self.critic, self.device = config, student, teacher, critic, device
        self.settings, self.seed = config.distill.matching, config.distill_seed

    def loss(self, step: int, rows: np.ndarray, captions: Tensor, guidance: Tensor) -> Tensor:
        """The critic's loss and, once its share of the training is over, the student's; a scalar.

        Args:
            rows: (B,), samples' rows, which address their randomness. captions: (B, L, C). guidance: (B,).
        """
        sigma_data = self.config.diffusion.sigma_data
        drawn = self._draw(step, rows, captions, guidance)
        compare = judge(
            both_branches(self.teacher, sigma_data, captions),
            edm_denoiser(self.critic, sigma_data, captions, guidance),
            matched=1 + self.settings.guidance_share * (guidance - 1),
            assumed=guidance.new_full((1,), self.config.distill.middle_guidance),
        )
        learnt = denoising_loss(
            lambda x, sigma: compare(x, sigma)[1], drawn.detach(), *self._disturbance("critic", step, rows), sigma_data
        ).mean()
        if step < self.settings.start * self.config.distill.steps:
            return learnt
        matched = matching_loss(compare, drawn, *self._disturbance("matching", step, rows))
        return learnt + self.settings.weight * matched.mean()

    def _draw(self, step: int, rows: np.ndarray, captions: Tensor, guidance: Tensor) -> Tensor:
        """Samples after the first 1, 2 ... jumps of the chain, (B, C, h, w), with gradient through the last jump."""
        levels = self.config.diffusion
        chain = torch.tensor(self.settings.sigmas, dtype=torch.float64)
        jumps = 1 + integer(self.seed, "matching jumps", step, len(chain))
        jump = consistency_function(self.student, levels.sigma_data, levels.sigma_min, captions, guidance)

        def fresh(number: int) -> Tensor:
            return self._noise(f"matching jump {number}", step, rows)

        return sample_consistency(last_alone(jump, jumps), fresh(0), chain[:jumps], levels.sigma_min, fresh)

    def _disturbance(self, stream: str, step: int, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Noise (B, C, h, w) and levels (B,) to compare at."""
        levels = self.config.diffusion
        draws = to_device(normal(self.seed, f"{stream} sigma", step, rows, ()), self.device)
        sigma = lognormal_sigmas(
            draws, self.settings.sigma_mean, self.settings.sigma_std, levels.sigma_min, levels.sigma_max
        )
        return self._noise(f"{stream} noise", step, rows), sigma

    def _noise(self, stream: str, step: int, rows: np.ndarray) -> Tensor:
        """Standard normal (B, C, h, w)."""
        model = self.config.model
        shape = (model.in_channels, model.latent_size, model.latent_size)
        return to_device(normal(self.seed, stream, step, rows, shape), self.device)
