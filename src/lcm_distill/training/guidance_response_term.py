"""The response to the guidance scale in a distillation: when it is trained, between which scales, and from where."""

import numpy as np
import torch
from torch import Tensor

from lcm_distill.config import DiffusionConfig, DistillConfig
from lcm_distill.core.device import to_device
from lcm_distill.core.randomness import integer, normal, uniform
from lcm_distill.diffusion.guidance import denoiser_at, guided_denoiser
from lcm_distill.diffusion.objectives.guidance_response_loss import response_loss
from lcm_distill.diffusion.objectives.pairs import pseudo_huber
from lcm_distill.diffusion.preconditioning import Network, consistency_function
from lcm_distill.training.observations import Observations


class GuidanceTerm:
    """Compares the student's response to its scale with the teacher's, in every n-th step.

    The lower scale is the lowest of `guidance_range`; the higher is drawn from the upper half of the range.

    Args:
        settings: of the distillation.
        seed: of the distillation's random numbers.
        student, teacher: networks as the engine prepared them.
        observed: where it adds its gradient in the student's samples.
        device: where they are.
    """

    def __init__(
        self,
        settings: DistillConfig,
        diffusion: DiffusionConfig,
        seed: int,
        student: Network,
        teacher: Network,
        observed: Observations,
        device: torch.device,
    ) -> None:
        self.settings, self.diffusion, self.seed, self.device = settings, diffusion, seed, device
        self.student, self.teacher, self.observed = student, teacher, observed

    def due(self, step: int) -> bool:
        """Whether a step has the term."""
        return self.settings.response.due(step, self.settings.steps)

    def loss(self, step: int, addresses: np.ndarray, clean: Tensor, captions: Tensor) -> Tensor:
        """The weighted loss of a step that is due, a scalar.

        Args:
            addresses: (B,), which address the samples' random numbers.
            clean: (B, C, H, W). captions: (B, L, C).
        """
        own, diffusion = self.settings.response, self.diffusion
        sigmas = self.sigmas(step)
        noise = to_device(normal(self.seed, "response noise", step, addresses, clean.shape[1:]), self.device)
        lower, higher = self.scales(step, addresses)
        own_lower, own_higher = (
            consistency_function(self.student, diffusion.sigma_data, diffusion.sigma_min, captions, scale)
            for scale in (lower, higher)
        )
        student = self.observed.function("response", own_lower), self.observed.function("response", own_higher)
        teacher = (
            denoiser_at(self.teacher, diffusion.sigma_data, captions, self.settings.guidance_range[0]),
            guided_denoiser(self.teacher, diffusion.sigma_data, captions, higher),
        )
        distance = pseudo_huber(self.settings.huber)
        return own.weight * response_loss(student, teacher, clean + sigmas[0] * noise, sigmas, distance).mean()

    def sigmas(self, step: int) -> list[float]:
        """The teacher's, falling; the first is that of the noisy samples."""
        sigmas = self.settings.response.sigmas
        lower = len(sigmas) - 2
        draw = integer(self.seed, "response start", step, 2 * lower)
        return sigmas[max(0, draw - lower + 1) :]

    def scales(self, step: int, addresses: np.ndarray) -> tuple[Tensor, Tensor]:
        """The lower and the higher scale, each (B,)."""
        low, high = self.settings.guidance_range
        middle = self.settings.middle_guidance
        higher = middle + (high - middle) * uniform(self.seed, "response guidance", step, addresses)
        return torch.full((len(addresses),), low, device=self.device), to_device(higher, self.device)
