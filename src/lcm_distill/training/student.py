"""The student's training: its loss, the random numbers of a step, and the weights that it publishes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lcm_distill.config import Config, DiffusionConfig, DistillConfig
from lcm_distill.core.device import to_device
from lcm_distill.core.hashing import digest
from lcm_distill.core.randomness import normal, uniform
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.layout import CacheLayout
from lcm_distill.data.cache.loader import Batch
from lcm_distill.diffusion.ema import update_average
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.noise import lognormal_sigmas, uniform_sigmas
from lcm_distill.diffusion.objectives.interface import Networks, Objective
from lcm_distill.diffusion.preconditioning import consistency_function
from lcm_distill.models.checkpoint_identity import files_sha256
from lcm_distill.models.networks import read_teacher, teacher_path
from lcm_distill.models.student_description import StudentDescription
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.budget import distill_flop
from lcm_distill.training.continuation import Continuation, decided_in_distillation, with_steps
from lcm_distill.training.critic import DistributionMatching
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.parallel import full_state_dict
from lcm_distill.training.engine.world import World, single_process
from lcm_distill.training.guidance_response_term import GuidanceTerm
from lcm_distill.training.loop import Trainer, Validate, no_validation, publish
from lcm_distill.training.lora import merge
from lcm_distill.training.loss import Loss, Terms
from lcm_distill.training.objective_registry import build_objective
from lcm_distill.training.student_networks import DistillationNetworks, build_networks
from lcm_distill.training.throughput import peak_flop


def prepare(config: Config, run: RunFolder, world: World | None = None) -> Trainer:
    """The student's training, ready to run.

    Args:
        world: the processes that train together; None is this process as the only one.

    Raises:
        UserError: the teacher or the cache is missing, incomplete or does not fit.
    """
    world, settings = world or single_process(config.device), config.distill
    engine = Engine(config.engine, world)
    cache = Cache.open(config, run)
    batches = cache.batches(settings.batch_size, config.distill_seed, world.rank, world.size)
    if world.is_main:
        cache.hold()
    objective = build_objective(settings, config.diffusion)
    networks = build_networks(
        config.model, settings, config.distill_seed, objective, read_teacher(config.model, world.device)
    )
    student, target, average = networks.student, networks.target, networks.average
    tokens = batches.captions.field.shape[0]
    return Trainer(
        label="distill",
        folder=run.distill,
        fingerprint=fingerprint(config),
        settings=settings,
        model=student,
        average=average,
        batches=batches,
        loss=build_loss(settings, config.diffusion, config.distill_seed, objective, networks, engine),
        engine=engine,
        critic=networks.critic,
        critic_rate=settings.matching.critic_rate,
        after_step=(lambda: update_average(target, student, settings.target_decay)) if target else lambda: None,
        extra={"target": target} if target else {},
        flop=distill_flop(config.model, settings, tokens) if peak_flop(world.device) else None,
        sources=cache.sample_paths,
        validate=_validation(config, run, world, published(settings, student, average)),
        continues=continuation(config),
    )


def build_loss(
    settings: DistillConfig,
    diffusion: DiffusionConfig,
    seed: int,
    objective: Objective,
    networks: DistillationNetworks,
    engine: Engine,
) -> Loss:
    """The terms of the loss of a step's samples; the engine prepares all networks."""
    device, draws = engine.world.device, StepDraws(settings, diffusion, seed)
    teacher, student = engine.prepare_frozen(networks.teacher), engine.prepare_trained(networks.student)
    target = engine.prepare_average(networks.target) if networks.target else student
    engine.prepare_stored(networks.average)
    critic = engine.prepare_trained(networks.critic) if networks.critic else None
    response = GuidanceTerm(settings, diffusion, seed, student, teacher, device) if settings.response.weight else None
    matching = (
        DistributionMatching(settings, diffusion, seed, student, teacher, critic, device)
        if critic is not None
        else None
    )

    def loss(step: int, batch: Batch) -> Terms:
        clean, captions = batch.to(device)
        noise = to_device(normal(seed, "distill noise", step, batch.addresses, clean.shape[1:]), device)
        sigma = to_device(draws.sigmas(objective.lowest_sigma, step, batch.addresses), device)
        guidance = to_device(draws.guidance(step, batch.addresses), device)
        functions = Networks(
            student=consistency_function(student, diffusion.sigma_data, diffusion.sigma_min, captions, guidance),
            target=consistency_function(target, diffusion.sigma_data, diffusion.sigma_min, captions, guidance),
            teacher=guided_denoiser(teacher, diffusion.sigma_data, captions, guidance),
        )
        terms = {"objective_loss": objective(functions, clean, noise, sigma, step / settings.steps).mean()}
        if response is not None and response.due(step):
            terms["response_loss"] = response.loss(step, batch.addresses, clean, captions)
        if matching is not None:
            terms |= matching.losses(step, batch.addresses, captions, guidance, clean.shape[1:])
        return terms

    return loss


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


def fingerprint(config: Config) -> str:
    """Identity of the student that this configuration trains: 16 hex digits."""
    return digest([
        config.fingerprint("model", "diffusion", "engine", "distill"),
        CacheLayout(config).fingerprint,
        files_sha256(teacher_path(config.model)),
    ])  # fmt: skip


def continuation(config: Config) -> Continuation:
    """Which students' training goes on to the configured number of steps."""

    def fingerprint_of(steps: int) -> str:
        return fingerprint(config.model_copy(update={"distill": with_steps(config.distill, steps)}))

    return Continuation("distill", config.distill, fingerprint_of, decided_in_distillation)


def published(settings: DistillConfig, model: nn.Module, average: nn.Module) -> nn.Module:
    """The one of a student's two networks whose weights are published."""
    return average if settings.publish == "average" else model


def as_plain(settings: DistillConfig, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A student's weights in the published key layout, with its adapters merged if it has any."""
    return merge(weights, settings.lora) if settings.lora.rank else weights


def _validation(config: Config, run: RunFolder, world: World, network: nn.Module) -> Validate:
    """Validation of a network that is to be published; `no_validation` if none is configured."""
    if config.engine.validate_every is None:
        return no_validation
    from lcm_distill.training.validation import StudentValidation  # imports encoders, which training never needs

    def write(path: Path) -> None:
        weights = as_plain(config.distill, full_state_dict(network))
        publish(path, weights, StudentDescription.of(config).to_json(), world)

    return StudentValidation(config, run, world, write)
