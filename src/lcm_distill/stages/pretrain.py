"""Training of a teacher from the cache, by denoising."""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from lcm_distill.config import Config, PretrainConfig, digest
from lcm_distill.data.loader import Batch
from lcm_distill.diffusion.denoising import denoising_loss
from lcm_distill.diffusion.preconditioning import edm_denoiser
from lcm_distill.diffusion.randomness import normal, stable_hash, uniform
from lcm_distill.diffusion.schedule import lognormal_sigmas
from lcm_distill.errors import UserError
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.stages.cache import cache_fingerprint, open_batches, sample_sources
from lcm_distill.stages.engine.engine import Engine
from lcm_distill.stages.engine.world import World, join
from lcm_distill.stages.networks import build_network
from lcm_distill.stages.training import Training, publish


def pretrain(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Train a freshly initialised teacher and publish its average as the run's `teacher.safetensors`."""
    settings = config.pretrain
    if settings is None:
        raise UserError("pretrain is missing: this configuration has no [pretrain] section")
    with join(config) as world:
        training = prepare(config, settings, run, world)
        yield from training.run()
        description = {"role": "teacher", "model": config.model.model_dump(exclude={"teacher"})}
        publish(run.teacher, training.average, description, world)


def prepare(config: Config, settings: PretrainConfig, run: RunFolder, world: World) -> Training:
    """The teacher's training, ready to run."""
    engine, device = Engine(config.engine, world), world.device
    torch.manual_seed(stable_hash(f"teacher {config.seed}"))
    model = build_network(config, guidance_embedding=False)
    average = copy.deepcopy(model).requires_grad_(False)
    network = engine.trained(model)
    engine.averaged(average)
    batches = open_batches(config, run, settings.batch_size, config.seed, world.rank, world.size)
    seed, levels = config.seed, config.diffusion

    def loss(step: int, batch: Batch) -> Tensor:
        clean, captions = batch.to(device)
        noise = normal(seed, "pretrain noise", step, batch.rows, clean.shape[1:]).to(device)
        draws = normal(seed, "pretrain sigma", step, batch.rows, ()).to(device)
        sigma = lognormal_sigmas(draws, settings.sigma_mean, settings.sigma_std, levels.sigma_min, levels.sigma_max)
        kept = uniform(seed, "caption drop", step, batch.rows).to(device) >= settings.caption_drop
        captions = captions * kept[:, None, None]
        denoise = edm_denoiser(network, levels.sigma_data, captions)
        return denoising_loss(denoise, clean, noise, sigma, levels.sigma_data).mean()

    identity = digest([config.fingerprint("model", "diffusion", "engine", "pretrain"), cache_fingerprint(config)])
    sources = partial(sample_sources, run)
    return Training(
        "pretrain", run.pretrain, identity, settings, model, average, batches, loss, engine, sources=sources
    )  # fmt: skip
