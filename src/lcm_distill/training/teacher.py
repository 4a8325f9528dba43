"""The teacher's training by denoising, with or without masked patches."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcm_distill.config import Config, DiffusionConfig, ModelConfig, PretrainConfig
from lcm_distill.core.device import to_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest
from lcm_distill.core.randomness import normal, stable_hash, uniform
from lcm_distill.core.words import counted
from lcm_distill.data.cache.layout import CacheLayout
from lcm_distill.data.cache.loader import Batch
from lcm_distill.diffusion.masking import kept_patches, patch_mask
from lcm_distill.diffusion.noise import lognormal_sigmas
from lcm_distill.diffusion.objectives.denoising import denoising_loss
from lcm_distill.diffusion.preconditioning import Network, edm_denoiser
from lcm_distill.models import MicroDiT, load_checkpoint
from lcm_distill.models.checkpoint_identity import files_sha256
from lcm_distill.models.networks import build_network
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.cache_mixture import mixed_in, mixture, open_mixture, sources
from lcm_distill.training.continuation import Continuation, with_steps
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.parallel import full_state_dict
from lcm_distill.training.engine.world import World, single_process
from lcm_distill.training.loop import Trainer, Validate, no_validation, publish
from lcm_distill.training.loss import Loss, Terms


def prepare(config: Config, settings: PretrainConfig, run: RunFolder, world: World | None = None) -> Trainer:
    """The teacher's training, ready to run.

    Args:
        world: the processes that train together; None is this process as the only one.

    Raises:
        UserError: the checkpoint to start from or a cache is missing or does not fit, or masking leaves too few
            patches for the experts.
    """
    world = world or single_process(config.device)
    engine = Engine(config.engine, world)
    model = initial_model(config.model, settings, config.seed)
    refuse_empty_experts(model, settings.mask_ratio)
    average = copy.deepcopy(model).requires_grad_(False)
    network = engine.prepare_trained(model)
    engine.prepare_stored(average)
    batches = open_mixture(config, settings, run, world)
    return Trainer(
        label="pretrain",
        folder=run.pretrain,
        fingerprint=fingerprint(config, settings),
        settings=settings,
        model=model,
        average=average,
        batches=batches,
        loss=build_loss(settings, config.diffusion, config.seed, model, network, world.device),
        engine=engine,
        sources=partial(sources, mixture(config, settings, run), batches),
        validate=_validation(config, run, world, average),
        continues=continuation(config, settings),
    )


def build_loss(
    settings: PretrainConfig,
    diffusion: DiffusionConfig,
    seed: int,
    model: MicroDiT,
    network: Callable[..., Tensor],
    device: torch.device,
) -> Loss:
    """The denoising loss of a step's samples, over the patches that are not masked.

    Args:
        model: the network in training. network: the same as the engine prepared it, to be called.
    """
    side = model.latent_size // model.patch_size

    def loss(step: int, batch: Batch) -> Terms:
        clean, captions = batch.to(device)
        noise = to_device(normal(seed, "pretrain noise", step, batch.addresses, clean.shape[1:]), device)
        draws = to_device(normal(seed, "pretrain sigma", step, batch.addresses, ()), device)
        sigma = lognormal_sigmas(
            draws, settings.sigma_mean, settings.sigma_std, diffusion.sigma_min, diffusion.sigma_max
        )
        has_caption = to_device(uniform(seed, "caption drop", step, batch.addresses), device) >= settings.caption_drop
        captions = captions * has_caption[:, None, None]
        if not settings.mask_ratio:
            denoise = edm_denoiser(network, diffusion.sigma_data, captions)
            return {"loss": denoising_loss(denoise, clean, noise, sigma, diffusion.sigma_data).mean()}
        draws = normal(seed, "mask", step, batch.addresses, (side**2,))
        kept = to_device(kept_patches(draws, settings.mask_ratio), device)
        denoise = edm_denoiser(masked(network, kept), diffusion.sigma_data, captions)
        mask = patch_mask(kept, side, model.patch_size)
        return {"loss": denoising_loss(denoise, clean, noise, sigma, diffusion.sigma_data, mask).mean()}

    return loss


def fingerprint(config: Config, settings: PretrainConfig) -> str:
    """Identity of the teacher that this configuration trains: 16 hex digits."""
    caches = [
        [CacheLayout(other).fingerprint, settings.caches[root]] for root, other in mixed_in(config, settings).items()
    ]
    start = [files_sha256(Path(settings.start))] if settings.start else []
    identity = [config.fingerprint("model", "diffusion", "engine", "pretrain"), CacheLayout(config).fingerprint]
    return digest([*identity, *([caches] if caches else []), *start])


def continuation(config: Config, settings: PretrainConfig) -> Continuation:
    """Which teachers' training goes on to the configured number of steps."""

    def fingerprint_of(steps: int) -> str:
        other = with_steps(settings, steps)
        return fingerprint(config.model_copy(update={"pretrain": other}), other)

    return Continuation("pretrain", settings, fingerprint_of)


def initial_model(sizes: ModelConfig, settings: PretrainConfig, seed: int) -> MicroDiT:
    """The network at the start: randomly initialised, or from `pretrain.start` with position embeddings of its own.

    Raises:
        UserError: the checkpoint is missing, unreadable or does not fit.
    """
    torch.manual_seed(stable_hash(f"teacher {seed}"))  # pyright: ignore[reportUnknownMemberType]
    model = build_network(sizes, guidance_embedding=False, empty=bool(settings.start))
    if settings.start:
        load_checkpoint(model, settings.start, own_positions=True)
    return model


def masked(network: Callable[..., Tensor], kept: Tensor) -> Network:
    """A network that drops all patches but `kept` (B, K) after its patch mixer."""

    def call(latents: Tensor, c_noise: Tensor, captions: Tensor, guidance: Tensor | None = None) -> Tensor:
        return network(latents, c_noise, captions, guidance, kept)

    return call


def refuse_empty_experts(model: MicroDiT, mask_ratio: float) -> None:
    """Check that enough patches are kept for every expert to take one.

    Raises:
        UserError: too few are kept.
    """
    patches = round((model.latent_size // model.patch_size) ** 2 * (1 - mask_ratio))
    if patches * model.variant.expert_capacity < model.variant.experts:
        raise UserError(
            f"pretrain.mask_ratio = {mask_ratio} keeps {counted(patches, 'patch', 'patches')}, too few for "
            f"{counted(model.variant.experts, 'expert')}: "
            "lower it"
        )


def describe_teacher(model: ModelConfig) -> dict[str, Any]:
    """The description in a teacher's checkpoint, by which it is rebuilt."""
    return {"role": "teacher", "model": model.model_dump(exclude={"teacher"})}


def _validation(config: Config, run: RunFolder, world: World, average: MicroDiT) -> Validate:
    """Validation of the average; `no_validation` if none is configured."""
    if config.engine.validate_every is None:
        return no_validation
    from lcm_distill.training.validation import TeacherValidation  # imports encoders, which training never needs

    def write(path: Path) -> None:
        publish(path, full_state_dict(average), describe_teacher(config.model), world)

    return TeacherValidation(config, run, world, write)
