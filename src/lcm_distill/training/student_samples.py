"""Samples of the student in its training, which a critic and a discriminator learn from."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lcm_distill.config import DiffusionConfig, DistillConfig
from lcm_distill.core.device import to_device
from lcm_distill.core.randomness import integer, normal
from lcm_distill.diffusion.few_step_samplers import few_step_sampler
from lcm_distill.diffusion.objectives.distribution_matching import gradient_in_last_call
from lcm_distill.diffusion.preconditioning import Network, consistency_function


class StudentSamples:
    """Generates with the student as in inference.

    Args:
        settings: of the distillation.
        seed: of the distillation's random numbers.
        student: as the engine prepared it.
        device: where it is.
    """

    def __init__(
        self, settings: DistillConfig, diffusion: DiffusionConfig, seed: int, student: Network, device: torch.device
    ) -> None:
        self.settings, self.diffusion, self.seed = settings, diffusion, seed
        self.student, self.device = student, device

    def generate(
        self, step: int, addresses: np.ndarray, captions: Tensor, guidance: Tensor, shape: Sequence[int]
    ) -> Tensor:
        """Samples (B, C, H, W) after a random number of sampling steps; a gradient goes through the last one.

        Args:
            addresses: (B,), which address the samples' random numbers.
            captions: (B, L, C). guidance: (B,).
            shape: (C, H, W) of the latents.
        """
        sigma_min, sigmas = self.diffusion.sigma_min, tuple(self.settings.matching.sigmas)
        steps = 1 + integer(self.seed, "matching jumps", step, len(sigmas))
        function = consistency_function(self.student, self.diffusion.sigma_data, sigma_min, captions, guidance)

        def noise(number: int) -> Tensor:
            return to_device(normal(self.seed, f"matching jump {number}", step, addresses, shape), self.device)

        sampler = few_step_sampler(sigmas[:steps], sigma_min, self.settings.fresh_noise)
        return sampler(gradient_in_last_call(function, steps), noise)
