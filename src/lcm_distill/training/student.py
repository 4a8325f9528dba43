"""The student's training: its networks, its loss and what is published."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lcm_distill.config import Config
from lcm_distill.core.device import to_device
from lcm_distill.core.hashing import digest, file_sha256
from lcm_distill.core.randomness import normal, stable_hash, uniform
from lcm_distill.data.cache.cache import cache_fingerprint, open_batches, sample_sources
from lcm_distill.data.cache.loader import Batch
from lcm_distill.diffusion.ema import update_average
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.noise import lognormal_sigmas, uniform_sigmas
from lcm_distill.diffusion.objectives.interface import Networks, Objective
from lcm_distill.diffusion.preconditioning import consistency_function
from lcm_distill.models import MicroDiT, fill
from lcm_distill.models.layers import ScalarEmbedder
from lcm_distill.models.networks import (
    build_network,
    build_teacher,
    read_teacher,
    teacher_path,
)
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.budget import distill_flop
from lcm_distill.training.critic import Matching
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.parallel import whole_weights
from lcm_distill.training.engine.world import World, alone
from lcm_distill.training.loop import Training, publish
from lcm_distill.training.lora import adapt, copy_sharing_frozen, merge
from lcm_distill.training.objectives import build_objective
from lcm_distill.training.throughput import peak_flop


def published(config: Config, model: nn.Module, average: nn.Module) -> nn.Module:
    """The one of the two whose weights are published."""
    return average if config.distill.publish == "average" else model


def as_plain(config: Config, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A student's weights in the published key layout, adapters merged into them if it has any."""
    return merge(weights, config.distill.lora) if config.distill.lora.rank else weights


def describe_student(config: Config) -> dict[str, Any]:
    """What a student's checkpoint says of itself: how to rebuild it and how to sample from it."""
    return {
        "role": "student",
        "model": config.model.model_dump(exclude={"teacher"}),
        "guidance_range": config.distill.guidance_range,
        "sigmas": config.evaluate.student_sigmas,
        "phases": config.phases,
    }


def fingerprint(config: Config) -> str:
    """Identity of the student that this configuration trains."""
    return digest([
        config.fingerprint("model", "diffusion", "engine", "distill"),
        cache_fingerprint(config),
        file_sha256(teacher_path(config)),
    ])  # fmt: skip


def prepare(config: Config, run: RunFolder, world: World | None = None) -> Training:
    """The student's training, ready to run; on this process alone if no world is given."""
    world = world or alone(config)
    engine, settings = Engine(config.engine, world), config.distill
    batches = open_batches(config, run, settings.batch_size, config.distill_seed, world.rank, world.size)
    objective = build_objective(config)
    networks = build_networks(config, objective, read_teacher(config, world.device))
    student, target, average = networks.student, networks.target, networks.average
    return Training(
        label="distill",
        folder=run.distill,
        fingerprint=fingerprint(config),
        settings=settings,
        model=student,
        average=average,
        batches=batches,
        loss=build_loss(config, objective, networks, engine),
        engine=engine,
        critic=networks.critic,
        critic_rate=settings.matching.critic_rate,
        after_step=(lambda: update_average(target, student, settings.target_decay)) if target else lambda: None,
        extra={"target": target} if target else {},
        flop=distill_flop(config, batches.captions.field.shape[0]) if peak_flop(world.device) else None,
        sources=partial(sample_sources, run),
        **validation(config, run, world, published(config, student, average)),
    )


class TrainedNetworks(NamedTuple):
    """Everything that takes part in a distillation.

    Attributes:
        student: receives gradients.
        target: its short average, which the target comes from; None where the student itself is asked.
        average: its long average. It is never called.
        teacher: does not change.
        critic: of distribution matching; receives gradients. None without it.
    """

    student: MicroDiT
    target: MicroDiT | None
    average: MicroDiT
    teacher: MicroDiT
    critic: MicroDiT | None


def build_networks(config: Config, objective: Objective, weights: dict[str, Tensor]) -> TrainedNetworks:
    """All networks from the teacher's weights, on the device that these are on; each changes by itself."""
    settings = config.distill
    torch.manual_seed(stable_hash(f"student {config.distill_seed}"))  # guidance embedders start with random weights
    student = student_from_teacher(config, weights)
    critic = guided_from_teacher(config, weights) if settings.matching.weight else None
    averaged = objective.uses_target and settings.target_decay > 0
    target = copy_sharing_frozen(student).requires_grad_(False) if averaged else None
    average = copy_sharing_frozen(student).requires_grad_(False)
    return TrainedNetworks(student, target, average, build_teacher(config, weights), critic)


def build_loss(
    config: Config, objective: Objective, networks: TrainedNetworks, engine: Engine
) -> Callable[[int, Batch], Tensor]:
    """The loss of a step's samples, a scalar, as `Training` takes it; the engine prepares all networks."""
    settings, levels, device = config.distill, config.diffusion, engine.world.device
    ask_teacher, ask_student = engine.frozen(networks.teacher), engine.trained(networks.student)
    ask_target = engine.averaged(networks.target) if networks.target else ask_student
    engine.stored(networks.average)
    critic = engine.trained(networks.critic) if networks.critic else None
    matching = Matching(config, ask_student, ask_teacher, critic, device) if critic else None

    def loss(step: int, batch: Batch) -> Tensor:
        clean, captions = batch.to(device)
        noise = to_device(normal(config.distill_seed, "distill noise", step, batch.rows, clean.shape[1:]), device)
        sigma = to_device(sample_sigmas(config, objective.lowest_sigma, step, batch.rows), device)
        guidance = to_device(sample_guidance(config, step, batch.rows), device)
        asked = Networks(
            student=consistency_function(ask_student, levels.sigma_data, levels.sigma_min, captions, guidance),
            target=consistency_function(ask_target, levels.sigma_data, levels.sigma_min, captions, guidance),
            teacher=guided_denoiser(ask_teacher, levels.sigma_data, captions, guidance),
        )
        followed = objective(asked, clean, noise, sigma, step / settings.steps).mean()
        return followed + matching.loss(step, batch.rows, captions, guidance) if matching else followed

    return loss


def validation(config: Config, run: RunFolder, world: World, network: nn.Module) -> dict[str, Any]:
    """`Training`'s argument that draws with a network now and then; none if that is not asked for."""
    if config.engine.validate_every is None:
        return {}
    from lcm_distill.training.validation import Validation  # imports encoders, which training never needs

    def write(place: RunFolder) -> None:
        publish(place.student, as_plain(config, whole_weights(network)), describe_student(config), world)

    return {"validate": Validation(config, run, world, write)}


def sample_sigmas(config: Config, lowest: float, step: int, rows: Any) -> Tensor:
    """Noise levels of a batch, (B,), float32, from `lowest` up."""
    settings, highest = config.distill, config.diffusion.sigma_max
    if settings.sigma_distribution == "uniform":
        draws = uniform(config.distill_seed, "distill sigma", step, rows)
        return uniform_sigmas(draws, lowest, highest, config.diffusion.rho)
    draws = normal(config.distill_seed, "distill sigma", step, rows, ())
    sigma = lognormal_sigmas(draws, settings.sigma_mean, settings.sigma_std, lowest, highest)
    pinned = uniform(config.distill_seed, "sigma max", step, rows) < settings.sigma_max_share
    return torch.where(pinned, highest, sigma)


def sample_guidance(config: Config, step: int, rows: Any) -> Tensor:
    """Guidance scales of a batch, (B,), float32."""
    low, high = config.distill.guidance_range
    return low + (high - low) * uniform(config.distill_seed, "guidance", step, rows)


def student_from_teacher(config: Config, weights: dict[str, Tensor] | None = None) -> MicroDiT:
    """A student that equals its teacher at every guidance scale, unless its guidance embedder starts at random.

    With `distill.lora.rank` it has adapters, and they and its guidance embedder alone are to be trained.

    Args:
        weights: the teacher's, of which it has a copy; None reads them.
    """
    centred = config.distill.guidance_embedder != "random"
    student = guided_from_teacher(config, read_teacher(config) if weights is None else weights, centred)
    if config.distill.lora.rank:
        adapt(student, config.distill.lora)
    return student


def guided_from_teacher(config: Config, weights: dict[str, Tensor], centred: bool = True) -> MicroDiT:
    """The teacher once more, with a copy of its weights and a guidance embedder.

    Args:
        centred: the embedding starts as zero whatever the scale, ready to learn how scales differ from the middle of
            the range; otherwise it starts at random.
    """
    network = build_network(config, guidance_embedding=True, empty=True)
    # On the CPU: the same numbers whatever the device.
    embedder = ScalarEmbedder(network.variant.dim)
    if centred:
        embedder.initialise_around(config.distill.middle_guidance)
    else:
        embedder.initialise()
    device = next(iter(weights.values())).device
    network.cfg_embedder = embedder.to(device)
    fill(network, {name: tensor.clone() for name, tensor in weights.items()}, teacher_path(config))
    return network
