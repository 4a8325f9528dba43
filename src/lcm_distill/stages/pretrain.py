"""Training of a teacher from the cache, by denoising."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from lcm_distill.config import Config, PretrainConfig, digest
from lcm_distill.device import resolve_device
from lcm_distill.diffusion.denoising import denoising_loss
from lcm_distill.diffusion.preconditioning import edm_denoiser
from lcm_distill.diffusion.randomness import normal, stable_hash, uniform
from lcm_distill.diffusion.schedule import lognormal_sigmas
from lcm_distill.errors import UserError
from lcm_distill.models.checkpoint import serialise
from lcm_distill.pipeline.atomic import commit_bytes
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.stages.cache import cache_fingerprint, open_batches
from lcm_distill.stages.networks import build_network
from lcm_distill.stages.training import Training


def pretrain(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Train a freshly initialised teacher and publish its average as the run's `teacher.safetensors`."""
    settings = config.pretrain
    if settings is None:
        raise UserError("pretrain is missing: this configuration has no [pretrain] section")
    training = prepare(config, settings, run)
    yield from training.run()
    description = {"role": "teacher", "model": config.model.model_dump(exclude={"teacher"})}
    commit_bytes(run.teacher, serialise(training.average, description))


def prepare(config: Config, settings: PretrainConfig, run: RunFolder) -> Training:
    """The teacher's training, ready to run."""
    device = resolve_device(config.device)
    torch.manual_seed(stable_hash(f"teacher {config.seed}"))
    model = build_network(config, guidance_embedding=False).to(device)
    batches = open_batches(config, run, settings.batch_size, config.seed)
    seed, levels = config.seed, config.diffusion

    def loss(step: int) -> Tensor:
        batch = batches[step]
        clean, captions = batch.to(device)
        noise = normal(seed, "pretrain noise", step, batch.rows, clean.shape[1:]).to(device)
        draws = normal(seed, "pretrain sigma", step, batch.rows, ()).to(device)
        sigma = lognormal_sigmas(draws, settings.sigma_mean, settings.sigma_std, levels.sigma_min, levels.sigma_max)
        kept = uniform(seed, "caption drop", step, batch.rows).to(device) >= settings.caption_drop
        captions = captions * kept[:, None, None]
        denoise = edm_denoiser(model, levels.sigma_data, captions)
        return denoising_loss(denoise, clean, noise, sigma, levels.sigma_data).mean()

    identity = digest([config.fingerprint("model", "diffusion", "pretrain"), cache_fingerprint(config)])
    average = copy.deepcopy(model)
    return Training("pretrain", run.pretrain, identity, settings, model, average, loss)
