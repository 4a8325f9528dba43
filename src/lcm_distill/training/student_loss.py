"""The student's loss: an objective, terms beside it, and the random conditions of a step's samples."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lcm_distill.config import DiffusionConfig, DistillConfig
from lcm_distill.core.device import to_device
from lcm_distill.core.randomness import normal, uniform
from lcm_distill.data.cache.loader import Batch
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.noise import lognormal_sigmas, uniform_sigmas
from lcm_distill.diffusion.objectives.interface import Networks, Objective
from lcm_distill.diffusion.preconditioning import consistency_function
from lcm_distill.training.adversarial_term import AdversarialTerm
from lcm_distill.training.critic import DistributionMatching
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.guidance_response_term import GuidanceTerm
from lcm_distill.training.loss import Terms
from lcm_distill.training.observations import Observations
from lcm_distill.training.student_networks import DistillationNetworks
from lcm_distill.training.student_samples import StudentSamples


class StudentLoss:
    """The terms of a step's loss. The engine prepares all networks, in place.

    Attributes:
        observed: what the terms show of the training's health, of the passes since it was taken.

    Args:
        settings: of the distillation.
        seed: of its random numbers.
    """

    def __init__(
        self,
        settings: DistillConfig,
        diffusion: DiffusionConfig,
        seed: int,
        objective: Objective,
        networks: DistillationNetworks,
        engine: Engine,
    ) -> None:
        self.settings, self.diffusion, self.seed, self.objective = settings, diffusion, seed, objective
        self.draws, self.device = StepDraws(settings, diffusion, seed), engine.world.device
        common, self.observed = (settings, diffusion, seed), Observations(self.device)
        self.teacher, self.student = engine.prepare_frozen(networks.teacher), engine.prepare_trained(networks.student)
        self.target = engine.prepare_average(networks.target) if networks.target else self.student
        engine.prepare_stored(networks.average)
        self.samples = StudentSamples(*common, self.student, self.device)
        self.response = self.matching = self.adversarial = None
        if settings.response.weight:
            self.response = GuidanceTerm(*common, self.student, self.teacher, self.observed, self.device)
        if networks.critic:
            critic = engine.prepare_trained(networks.critic)
            self.matching = DistributionMatching(*common, self.teacher, critic, self.observed, self.device)
        if heads := networks.discriminator:
            trained = engine.prepare_heads(heads)
            self.adversarial = AdversarialTerm(*common, networks.teacher, heads, trained, self.observed, self.device)

    def __call__(self, step: int, batch: Batch) -> Terms:
        """See `Loss`."""
        clean, captions = batch.to(self.device)
        guidance = to_device(self.draws.guidance(step, batch.addresses), self.device)
        terms = {"objective_loss": self._objective(step, batch, clean, captions, guidance)}
        if self.response and self.response.due(step):
            terms["response_loss"] = self.response.loss(step, batch.addresses, clean, captions)
        if self.matching or self.adversarial:
            samples = self.samples.generate(step, batch.addresses, captions, guidance, clean.shape[1:])
            self.observed.spread("student_spread", samples)
            self.observed.spread("data_spread", clean)
            if self.matching:
                terms |= self.matching.losses(step, batch.addresses, captions, guidance, samples)
            if self.adversarial:
                terms |= self.adversarial.losses(step, batch.addresses, clean, captions, samples)
        return terms

    def _objective(self, step: int, batch: Batch, clean: Tensor, captions: Tensor, guidance: Tensor) -> Tensor:
        """The mean loss of the configured objective, a scalar."""
        sigma_data, sigma_min = self.diffusion.sigma_data, self.diffusion.sigma_min
        noise = to_device(normal(self.seed, "distill noise", step, batch.addresses, clean.shape[1:]), self.device)
        sigma = to_device(self.draws.sigmas(self.objective.lowest_sigma, step, batch.addresses), self.device)
        student = consistency_function(self.student, sigma_data, sigma_min, captions, guidance)
        functions = Networks(
            student=self.observed.function("objective", student),
            target=consistency_function(self.target, sigma_data, sigma_min, captions, guidance),
            teacher=guided_denoiser(self.teacher, sigma_data, captions, guidance),
        )
        return self.objective(functions, clean, noise, sigma, step / self.settings.steps).mean()


@dataclass(frozen=True)
class StepDraws:
    """The random conditions of a step's samples, by seed, step and address (`Batch.addresses`).

    Attributes:
        settings: of the distillation, which name the distributions.
        diffusion: the range and schedule of noise levels.
        seed: of the distillation.
    """

    settings: DistillConfig
    diffusion: DiffusionConfig
    seed: int

    def sigmas(self, lowest: float, step: int, rows: Iterable[int]) -> Tensor:
        """Noise levels from `lowest` up to sigma_max, float32 (B,) on the CPU."""
        settings, highest = self.settings, self.diffusion.sigma_max
        if settings.sigma_distribution == "uniform":
            draws = uniform(self.seed, "distill sigma", step, rows)
            return uniform_sigmas(draws, lowest, highest, self.diffusion.rho)
        draws = normal(self.seed, "distill sigma", step, rows, ())
        sigma = lognormal_sigmas(draws, settings.sigma_mean, settings.sigma_std, lowest, highest)
        at_maximum = uniform(self.seed, "sigma max", step, rows) < settings.sigma_max_share
        return torch.where(at_maximum, highest, sigma)

    def guidance(self, step: int, rows: Iterable[int]) -> Tensor:
        """Guidance scales, uniform over `guidance_range`, float32 (B,) on the CPU."""
        low, high = self.settings.guidance_range
        return low + (high - low) * uniform(self.seed, "guidance", step, rows)
