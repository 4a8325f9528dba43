"""Distribution matching in a distillation: the critic, and the terms that it adds to the loss of a step."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lcm_distill.config import DiffusionConfig, DistillConfig
from lcm_distill.diffusion.guidance import both_branches
from lcm_distill.diffusion.objectives.denoising import denoising_loss
from lcm_distill.diffusion.objectives.distribution_matching import (
    matching_loss,
    real_and_fake_scores,
)
from lcm_distill.diffusion.preconditioning import Network, edm_denoiser
from lcm_distill.training.noise_draws import NoiseDraws
from lcm_distill.training.observations import Observations


class DistributionMatching:
    """Trains the critic on the student's samples, and matches the student to the teacher.

    The critic is the fake score network: it learns to denoise the student's samples, each at the guidance scale that
    it was generated for. It starts as the teacher, and its score is what it has learnt since, on top of the teacher
    guided at the middle of `guidance_range`.

    Args:
        settings: of the distillation.
        seed: of the distillation's random numbers.
        teacher, critic: networks as the engine prepared them.
        observed: where it adds the errors of critic and teacher, and its gradient in the student's samples.
        device: where they are.
    """

    def __init__(
        self,
        settings: DistillConfig,
        diffusion: DiffusionConfig,
        seed: int,
        teacher: Network,
        critic: Network,
        observed: Observations,
        device: torch.device,
    ) -> None:
        self.settings, self.diffusion, self.seed, self.device = settings, diffusion, seed, device
        self.teacher, self.critic, self.observed = teacher, critic, observed

    def losses(
        self, step: int, addresses: np.ndarray, captions: Tensor, guidance: Tensor, samples: Tensor
    ) -> dict[str, Tensor]:
        """The critic's loss, and the weighted matching loss once `matching.start` of the training is over; scalars.

        Args:
            addresses: (B,), which address the samples' random numbers.
            captions: (B, L, C). guidance: (B,), scales that the samples were generated for.
            samples: (B, C, H, W), the student's, with gradient.
        """
        own, sigma_data, shape = self.settings.matching, self.diffusion.sigma_data, samples.shape[1:]
        scores = real_and_fake_scores(
            both_branches(self.teacher, sigma_data, captions),
            edm_denoiser(self.critic, sigma_data, captions, guidance),
            real_guidance=(1 + own.guidance_share * (guidance - 1) - own.guidance_less).clamp(min=1),
            assumed_guidance=guidance.new_full((1,), self.settings.middle_guidance),
        )
        noise, sigma = self._noise_and_sigma("critic", step, addresses, shape)
        real, fake = scores(samples.detach() + sigma.view(-1, 1, 1, 1) * noise, sigma)
        critic_losses, teacher_losses = (
            denoising_loss(lambda x, sigma, score=score: score, samples.detach(), noise, sigma, sigma_data)
            for score in (fake, real)
        )
        self.observed.add("critic_error", critic_losses.sum())
        self.observed.add("teacher_error", teacher_losses.sum())
        critic_loss = critic_losses.mean()
        if not own.begun(step, self.settings.steps):
            return {"critic_loss": critic_loss}
        samples = self.observed.gradient("matching", samples)
        if own.shared_noise:
            matching = matching_loss(lambda x, sigma: (real, fake), samples, noise, sigma)
        else:
            matching = matching_loss(scores, samples, *self._noise_and_sigma("matching", step, addresses, shape))
        return {"critic_loss": critic_loss, "matching_loss": own.weight * matching.mean()}

    def _noise_and_sigma(
        self, stream: str, step: int, addresses: np.ndarray, shape: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Noise (B, C, H, W) and noise levels (B,) at which samples are scored."""
        own = self.settings.matching
        draws = NoiseDraws(self.seed, own.sigma_mean, own.sigma_std, self.diffusion, self.device)
        return draws.noise_and_sigma(stream, step, addresses, shape)
