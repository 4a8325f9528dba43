"""The adversarial term of a distillation: the discriminator's loss, and the student's on the same samples."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call  # pyright: ignore[reportUnknownVariableType]

from lcm_distill.config import DiffusionConfig, DistillConfig
from lcm_distill.core.device import to_device
from lcm_distill.core.randomness import normal
from lcm_distill.diffusion.noise import lognormal_sigmas
from lcm_distill.diffusion.objectives.adversarial import discriminator_loss, generator_loss, with_gradient
from lcm_distill.diffusion.preconditioning import edm_denoiser
from lcm_distill.models import MicroDiT
from lcm_distill.models.discriminator import Discriminator, blocks_with_heads, tokens_after


class AdversarialTerm:
    """Trains a discriminator on data and the student's samples, and the student to be taken for data.

    Data and samples are noised alike; the discriminator sees what the teacher computes of them with their captions.

    Args:
        settings: of the distillation.
        seed: of the distillation's random numbers.
        teacher: as the engine prepared it, in place.
        discriminator: its heads. trained: the same as the engine prepared them, for gradients of their own.
        device: where all are.
    """

    def __init__(
        self,
        settings: DistillConfig,
        diffusion: DiffusionConfig,
        seed: int,
        teacher: MicroDiT,
        discriminator: Discriminator,
        trained: Callable[..., Tensor],
        device: torch.device,
    ) -> None:
        self.settings, self.diffusion, self.seed, self.device = settings, diffusion, seed, device
        self.teacher, self.blocks = teacher, blocks_with_heads(teacher)
        self.discriminator, self.trained = discriminator, trained

    def losses(
        self, step: int, addresses: np.ndarray, clean: Tensor, captions: Tensor, samples: Tensor
    ) -> dict[str, Tensor]:
        """The discriminator's loss and, once `adversarial.start` of the training is over, the student's; scalars.

        Args:
            addresses: (B,), which address the samples' random numbers.
            clean: (B, C, H, W), data. captions: (B, L, C).
            samples: (B, C, H, W), the student's, with gradient.
        """
        own = self.settings.adversarial
        begun = own.begun(step, self.settings.steps)
        sigma, noise = self._sigma_and_noise(step, addresses, clean)
        with torch.no_grad():
            real = self._tokens(clean + noise, sigma, captions)
        noisy = (samples.detach() + noise).requires_grad_(begun)
        fake = self._tokens(noisy, sigma, captions)
        both = [torch.cat([data, sample.detach()]) for data, sample in zip(real, fake, strict=True)]
        discriminating = discriminator_loss(*self.trained(*both).chunk(2)).mean()
        if not begun:
            return {"discriminator_loss": discriminating}
        frozen = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        losses = generator_loss(functional_call(self.discriminator, frozen, tuple(fake)))
        (gradient,) = torch.autograd.grad(losses.sum(), noisy)
        adversarial = own.weight * with_gradient(losses, samples, gradient).mean()
        return {"discriminator_loss": discriminating, "adversarial_loss": adversarial}

    def _tokens(self, noisy: Tensor, sigma: Tensor, captions: Tensor) -> list[Tensor]:
        with tokens_after(self.blocks) as tokens:
            edm_denoiser(self.teacher, self.diffusion.sigma_data, captions)(noisy, sigma)
        return tokens

    def _sigma_and_noise(self, step: int, addresses: np.ndarray, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels (B,) and noise of these levels (B, C, H, W)."""
        own, diffusion = self.settings.adversarial, self.diffusion
        draws = to_device(normal(self.seed, "adversarial sigma", step, addresses, ()), self.device)
        sigma = lognormal_sigmas(draws, own.sigma_mean, own.sigma_std, diffusion.sigma_min, diffusion.sigma_max)
        noise = to_device(normal(self.seed, "adversarial noise", step, addresses, clean.shape[1:]), self.device)
        return sigma, sigma.view(-1, 1, 1, 1) * noise
