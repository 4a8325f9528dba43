"""The teacher's training: its network, its masked denoising loss and the caches it learns from."""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lcm_distill.config import Config, PretrainConfig, load_file
from lcm_distill.core.device import to_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import digest, file_sha256
from lcm_distill.core.randomness import normal, stable_hash, uniform
from lcm_distill.data.cache.cache import cache_fingerprint, open_batches, sample_sources
from lcm_distill.data.cache.loader import Batch, Batches, MixedBatches
from lcm_distill.diffusion.masking import kept_patches, seen_values
from lcm_distill.diffusion.noise import lognormal_sigmas
from lcm_distill.diffusion.objectives.denoising import denoising_loss
from lcm_distill.diffusion.preconditioning import Network, edm_denoiser
from lcm_distill.models import MicroDiT, load_checkpoint
from lcm_distill.models.networks import build_network
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.world import World, alone
from lcm_distill.training.loop import Training


def prepare(config: Config, settings: PretrainConfig, run: RunFolder, world: World | None = None) -> Training:
    """The teacher's training, ready to run; on this process alone if no world is given.

    Raises:
        UserError: the checkpoint to start from, or a cache that is mixed in, is not there or does not fit; or so much
            is masked that no expert would take a patch.
    """
    world = world or alone(config)
    engine, device = Engine(config.engine, world), world.device
    model = first_weights(config, settings)
    refuse_empty_experts(model, settings.mask_ratio)
    average = copy.deepcopy(model).requires_grad_(False)
    network = engine.trained(model)
    engine.stored(average)
    batches = open_mixture(config, settings, run, world)
    seed, levels = config.seed, config.diffusion

    def loss(step: int, batch: Batch) -> Tensor:
        clean, captions = batch.to(device)
        noise = to_device(normal(seed, "pretrain noise", step, batch.rows, clean.shape[1:]), device)
        draws = to_device(normal(seed, "pretrain sigma", step, batch.rows, ()), device)
        sigma = lognormal_sigmas(draws, settings.sigma_mean, settings.sigma_std, levels.sigma_min, levels.sigma_max)
        has_caption = to_device(uniform(seed, "caption drop", step, batch.rows), device) >= settings.caption_drop
        captions = captions * has_caption[:, None, None]
        if not settings.mask_ratio:
            denoise = edm_denoiser(network, levels.sigma_data, captions)
            return denoising_loss(denoise, clean, noise, sigma, levels.sigma_data).mean()
        side = model.latent_size // model.patch_size
        masks = normal(seed, "mask", step, batch.rows, (side**2,))
        kept = to_device(kept_patches(masks, settings.mask_ratio), device)
        denoise = edm_denoiser(masked(network, kept), levels.sigma_data, captions)
        seen = seen_values(kept, side, model.patch_size)
        return denoising_loss(denoise, clean, noise, sigma, levels.sigma_data, seen).mean()

    return Training(
        label="pretrain",
        folder=run.pretrain,
        fingerprint=fingerprint(config, settings),
        settings=settings,
        model=model,
        average=average,
        batches=batches,
        loss=loss,
        engine=engine,
        sources=partial(sources, [folder for _, folder, _ in mixture(config, settings, run)], batches),
    )


def fingerprint(config: Config, settings: PretrainConfig) -> str:
    """Identity of the teacher that this configuration trains."""
    caches = [[cache_fingerprint(other), settings.caches[root]] for root, other in mixed_in(config, settings).items()]
    start = [file_sha256(Path(settings.start))] if settings.start else []
    identity = [config.fingerprint("model", "diffusion", "engine", "pretrain"), cache_fingerprint(config)]
    return digest([*identity, *([caches] if caches else []), *start])


def first_weights(config: Config, settings: PretrainConfig) -> MicroDiT:
    """The network as training starts: fresh, or as an earlier stage left it, positions being those of this one."""
    torch.manual_seed(stable_hash(f"teacher {config.seed}"))
    model = build_network(config, guidance_embedding=False, empty=bool(settings.start))
    if settings.start:
        load_checkpoint(model, settings.start, own_positions=True)
    return model


def masked(network: Callable[..., Tensor], kept: Tensor) -> Network:
    """A network that goes on with the patches `kept` (B, K) alone after its patch mixer."""

    def call(latents: Tensor, c_noise: Tensor, captions: Tensor, guidance: Tensor | None = None) -> Tensor:
        return network(latents, c_noise, captions, guidance, kept)

    return call


def refuse_empty_experts(model: MicroDiT, mask_ratio: float) -> None:
    """Nothing, if enough patches are kept for every expert to take one.

    Raises:
        UserError: they are not.
    """
    patches = round((model.latent_size // model.patch_size) ** 2 * (1 - mask_ratio))
    if patches * model.variant.expert_capacity < model.variant.experts:
        raise UserError(
            f"pretrain.mask_ratio = {mask_ratio} keeps {patches} patches, too few for {model.variant.experts} experts: "
            "lower it"
        )


def mixture(config: Config, settings: PretrainConfig, run: RunFolder) -> list[tuple[Config, RunFolder, float]]:
    """The caches that are trained on: the run's own and those that are mixed in, each with its share of the samples.

    Raises:
        UserError: a cache that is mixed in is not there, or was made for another network or by other encoders.
    """
    own = [(config, run, settings.own_share)] if settings.own_share else []
    others = mixed_in(config, settings)
    return own + [(other, RunFolder(Path(root)), settings.caches[root]) for root, other in others.items()]


def open_mixture(config: Config, settings: PretrainConfig, run: RunFolder, world: World) -> Batches:
    """A rank's batches from the run's own cache and those that are mixed in.

    Raises:
        UserError: a cache is not complete, or does not fit.
    """
    caches, size, ranks = mixture(config, settings, run), settings.batch_size, (world.rank, world.size)
    if not settings.caches:
        return open_batches(config, run, size, config.seed, *ranks)
    parts = [open_batches(of, folder, size, config.seed) for of, folder, _ in caches]
    return MixedBatches(parts, [share for *_, share in caches], size, *ranks)


def sources(caches: Sequence[RunFolder], batches: Batches, rows: Iterable[int]) -> list[str]:
    """Where the samples of some rows come from; of a mixture, behind the folder of the run that has them."""
    if not isinstance(batches, MixedBatches):
        return sample_sources(caches[0], rows)
    located = [batches.cache_of(row) for row in rows]
    return [f"{caches[number].root}: {sample_sources(caches[number], [row])[0]}" for number, row in located]


def mixed_in(config: Config, settings: PretrainConfig) -> dict[str, Config]:
    """Configurations of the runs whose caches are mixed in, by folder, with this run's network.

    Raises:
        UserError: there is no such run, or its cache does not fit.
    """
    return {root: _fitting(config, root) for root in sorted(settings.caches)}


def _fitting(config: Config, root: str) -> Config:
    run = RunFolder(Path(root))
    other = load_file(run.require(run.config, "name folders of runs in pretrain.caches"))
    differences = other.differences(config, ["encoders"])
    for key in ("in_channels", "caption_channels"):
        own, theirs = getattr(config.model, key), getattr(other.model, key)
        differences += [f"model.{key} = {theirs}, not {own}"] if own != theirs else []
    if config.resolution not in other.data.resolutions:
        differences.append(f"data.resolutions = {other.data.resolutions} without {config.resolution}")
    if differences:
        raise UserError(f"pretrain.caches: {root} was made with {'; '.join(differences)}")
    return other.model_copy(update={"model": config.model})
