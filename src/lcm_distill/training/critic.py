"""Distribution matching in a distillation: the critic, and the terms that it adds to the loss of a step."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lcm_distill.config import DiffusionConfig, DistillConfig
from lcm_distill.core.device import to_device
from lcm_distill.core.randomness import integer, normal
from lcm_distill.diffusion.few_step_samplers import few_step_sampler
from lcm_distill.diffusion.guidance import both_branches
from lcm_distill.diffusion.noise import lognormal_sigmas
from lcm_distill.diffusion.objectives.denoising import denoising_loss
from lcm_distill.diffusion.objectives.distribution_matching import (
    gradient_in_last_call,
    matching_loss,
    real_and_fake_scores,
)
from lcm_distill.diffusion.preconditioning import Network, consistency_function, edm_denoiser


class DistributionMatching:
    """Generates with the student, trains the critic on the result, and matches the student to the teacher.

    The critic is the fake score network: it learns to denoise the student's samples, each at the guidance scale that
    it was generated for. It starts as the teacher, and its score is what it has learnt since, on top of the teacher
    guided at the middle of `guidance_range`.

    Args:
        settings: of the distillation.
        seed: of the distillation's random numbers.
        student, teacher, critic: networks as the engine prepared them.
        device: where they are.
    """

    def __init__(
        self,
        settings: DistillConfig,
        diffusion: DiffusionConfig,
        seed: int,
        student: Network,
        teacher: Network,
        critic: Network,
        device: torch.device,
    ) -> None:
        self.settings, self.diffusion, self.seed, self.device = settings, diffusion, seed, device
        self.student, self.teacher, self.critic = student, teacher, critic

    def losses(
        self, step: int, addresses: np.ndarray, captions: Tensor, guidance: Tensor, shape: Sequence[int]
    ) -> dict[str, Tensor]:
        """The critic's loss, and the weighted matching loss once `matching.start` of the training is over; scalars.

        Args:
            addresses: (B,), which address the samples' random numbers.
            captions: (B, L, C). guidance: (B,).
            shape: (C, H, W) of the latents.
        """
        own, sigma_data = self.settings.matching, self.diffusion.sigma_data
        samples = self._generate(step, addresses, captions, guidance, shape)
        scores = real_and_fake_scores(
            both_branches(self.teacher, sigma_data, captions),
            edm_denoiser(self.critic, sigma_data, captions, guidance),
            real_guidance=(1 + own.guidance_share * (guidance - 1) - own.guidance_less).clamp(min=1),
            assumed_guidance=guidance.new_full((1,), self.settings.middle_guidance),
        )
        noise, sigma = self._noise_and_sigma("critic", step, addresses, shape)
        real, fake = scores(samples.detach() + sigma.view(-1, 1, 1, 1) * noise, sigma)
        critic_loss = denoising_loss(lambda x, sigma: fake, samples.detach(), noise, sigma, sigma_data).mean()
        if not own.begun(step, self.settings.steps):
            return {"critic_loss": critic_loss}
        if own.shared_noise:
            matching = matching_loss(lambda x, sigma: (real, fake), samples, noise, sigma)
        else:
            matching = matching_loss(scores, samples, *self._noise_and_sigma("matching", step, addresses, shape))
        return {"critic_loss": critic_loss, "matching_loss": own.weight * matching.mean()}

    def _generate(
        self, step: int, addresses: np.ndarray, captions: Tensor, guidance: Tensor, shape: Sequence[int]
    ) -> Tensor:
        """The student's samples after a random number of its sampling steps, (B, C, H, W).

        A gradient goes through the last step.
        """
        sigma_min, sigmas = self.diffusion.sigma_min, tuple(self.settings.matching.sigmas)
        steps = 1 + integer(self.seed, "matching jumps", step, len(sigmas))
        function = consistency_function(self.student, self.diffusion.sigma_data, sigma_min, captions, guidance)

        def noise(number: int) -> Tensor:
            return self._noise(f"matching jump {number}", step, addresses, shape)

        sampler = few_step_sampler(sigmas[:steps], sigma_min, self.settings.fresh_noise)
        return sampler(gradient_in_last_call(function, steps), noise)

    def _noise_and_sigma(
        self, stream: str, step: int, addresses: np.ndarray, shape: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Noise (B, C, H, W) and noise levels (B,) at which samples are scored."""
        own = self.settings.matching
        draws = to_device(normal(self.seed, f"{stream} sigma", step, addresses, ()), self.device)
        sigma = lognormal_sigmas(
            draws, own.sigma_mean, own.sigma_std, self.diffusion.sigma_min, self.diffusion.sigma_max
        )
        return self._noise(f"{stream} noise", step, addresses, shape), sigma

    def _noise(self, stream: str, step: int, addresses: np.ndarray, shape: Sequence[int]) -> Tensor:
        """Standard normal (B, C, H, W)."""
        return to_device(normal(self.seed, stream, step, addresses, shape), self.device)
