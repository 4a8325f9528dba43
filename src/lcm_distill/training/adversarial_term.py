"""The adversarial term of a distillation: the discriminator's loss, and the student's on the same samples."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call  # pyright: ignore[reportUnknownVariableType]

from lcm_distill.config import DiffusionConfig, DistillConfig
from lcm_distill.diffusion.objectives.adversarial import discriminator_loss, generator_loss, with_gradient
from lcm_distill.diffusion.preconditioning import edm_denoiser
from lcm_distill.models import MicroDiT
from lcm_distill.models.discriminator import Discriminator, blocks_with_heads, tokens_after
from lcm_distill.training.noise_draws import NoiseDraws
from lcm_distill.training.observations import Observations


class AdversarialTerm:
    """Trains a discriminator on data and the student's samples, and the student to be taken for data.

    Data and samples are noised alike; the discriminator sees what the teacher computes of them with their captions.

    Args:
        settings: of the distillation.
        seed: of the distillation's random numbers.
        teacher: as the engine prepared it, in place.
        discriminator: its heads. trained: the same as the engine prepared them, for gradients of their own.
        observed: where it adds the margin between logits, and its gradient in the student's samples.
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
        observed: Observations,
        device: torch.device,
    ) -> None:
        self.settings, self.diffusion, self.seed, self.device = settings, diffusion, seed, device
        self.teacher, self.blocks = teacher, blocks_with_heads(teacher)
        self.discriminator, self.trained, self.observed = discriminator, trained, observed

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
        draws = NoiseDraws(self.seed, own.sigma_mean, own.sigma_std, self.diffusion, self.device)
        unit, sigma = draws.noise_and_sigma("adversarial", step, addresses, clean.shape[1:])
        noise = sigma.view(-1, 1, 1, 1) * unit
        with torch.no_grad():
            real, _ = self._tokens(clean + noise, sigma, captions)
        noisy = (samples.detach() + noise).requires_grad_(begun)
        fake, denoised = self._tokens(noisy, sigma, captions)
        both = [torch.cat([data, sample.detach()]) for data, sample in zip(real, fake, strict=True)]
        logits = self.trained(*both).chunk(2)
        self.observed.add("logit_margin", (logits[0] - logits[1]).mean(dim=1).sum())
        discriminating = discriminator_loss(*logits).mean()
        if not begun:
            return {"discriminator_loss": discriminating}
        frozen = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        losses = generator_loss(functional_call(self.discriminator, frozen, tuple(fake)))
        # FSDP gathers the teacher's outer weights when a gradient reaches the teacher's output: one that is zero.
        gradients = torch.ones_like(losses), torch.zeros_like(denoised)
        (gradient,) = torch.autograd.grad((losses, denoised), noisy, gradients)
        samples = self.observed.gradient("adversarial", samples)
        adversarial = own.weight * with_gradient(losses, samples, gradient).mean()
        return {"discriminator_loss": discriminating, "adversarial_loss": adversarial}

    def _tokens(self, noisy: Tensor, sigma: Tensor, captions: Tensor) -> tuple[list[Tensor], Tensor]:
        """Tokens after the blocks with a head, and the teacher's denoised samples."""
        with tokens_after(self.blocks) as tokens:
            denoised = edm_denoiser(self.teacher, self.diffusion.sigma_data, captions)(noisy, sigma)
        return tokens, denoised
