"""The student's training, and the weights that it publishes."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from lcm_distill.config import Config, DistillConfig
from lcm_distill.core.hashing import digest
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.layout import CacheLayout
from lcm_distill.diffusion.ema import update_average
from lcm_distill.models.checkpoint_identity import files_sha256
from lcm_distill.models.networks import read_teacher, teacher_path
from lcm_distill.models.student_description import StudentDescription
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.training.budget import distill_flop
from lcm_distill.training.continuation import Continuation, decided_in_distillation, with_steps
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.parallel import full_state_dict
from lcm_distill.training.engine.world import World, single_process
from lcm_distill.training.events import Events
from lcm_distill.training.loop import Trainer, Validate, no_validation, publish
from lcm_distill.training.lora import merge
from lcm_distill.training.objective_registry import build_objective
from lcm_distill.training.student_loss import StudentLoss
from lcm_distill.training.student_networks import DistillationNetworks, build_networks
from lcm_distill.training.throughput import peak_flop


def prepare(config: Config, run: RunFolder, world: World | None = None, watch: int | None = None) -> Trainer:
    """The student's training, ready to run.

    Args:
        world: the processes that train together; None is this process as the only one.
        watch: number of steps between two rows of images, see `training.watch`; None for none.

    Raises:
        UserError: the teacher or the cache is missing, incomplete or does not fit, or `watch` makes too many rows.
    """
    world, settings = world or single_process(config.device), config.distill
    engine = Engine(config.engine, world)
    cache = Cache.open(config, run)
    batches = cache.batches(settings.batch_size, config.distill_seed, world.rank, world.size)
    if world.is_main:
        cache.hold()
    objective = build_objective(settings, config.diffusion)
    weights = read_teacher(config.model, world.device)
    networks = build_networks(config.model, settings, config.distill_seed, objective, weights)
    (student, target, average, *_), tokens = networks, batches.captions.field.shape[0]
    loss = StudentLoss(settings, config.diffusion, config.distill_seed, objective, networks, engine)
    return Trainer(
        label="distill",
        folder=run.distill,
        fingerprint=fingerprint(config),
        settings=settings,
        model=student,
        average=average,
        batches=batches,
        loss=loss,
        observed=loss.observed.take,
        engine=engine,
        beside=_trained_beside(settings, networks),
        after_step=(lambda: update_average(target, student, settings.target_decay)) if target else lambda: None,
        extra={"target": target} if target else {},
        flop=distill_flop(config.model, settings, tokens) if peak_flop(world.device) else None,
        sources=cache.sample_paths,
        validate=_validation(config, run, world, published(settings, student, average), watch),
        continues=continuation(config),
    )


def _trained_beside(settings: DistillConfig, networks: DistillationNetworks) -> dict[str, tuple[nn.Module, float]]:
    """The networks that the student's loss trains beside it, each with its learning rate over the student's."""
    rates = {"critic": settings.matching.critic_rate, "discriminator": settings.adversarial.discriminator_rate}
    return {name: (network, rate) for name, rate in rates.items() if (network := getattr(networks, name))}


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


def _validation(config: Config, run: RunFolder, world: World, network: nn.Module, watch: int | None) -> Validate:
    """Validation of a network that is to be published, and its images as they change; `no_validation` without both."""
    if config.engine.validate_every is None and watch is None:
        return no_validation
    from lcm_distill.training.validation import StudentValidation  # imports encoders, which training never needs
    from lcm_distill.training.watch import Watch

    def write(path: Path) -> None:
        weights = as_plain(config.distill, full_state_dict(network))
        publish(path, weights, StudentDescription.of(config).to_json(), world)

    parts = [StudentValidation(config, run, world, write)] if config.engine.validate_every else []
    if watch is not None:
        parts.append(Watch(config, run, world, write, watch))

    def validate(step: int, events: Events | None) -> Iterator[Progress]:
        for part in parts:
            yield from part(step, events)

    return validate
