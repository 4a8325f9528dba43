"""Stage two: a few-step student from the teacher, on cached latents alone."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lcm_distill.config import Config, DistillConfig, digest
from lcm_distill.device import resolve_device
from lcm_distill.diffusion.consistency import consistency_loss, shrink_sigma
from lcm_distill.diffusion.ema import update_average
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.preconditioning import consistency_function
from lcm_distill.diffusion.randomness import normal, stable_hash, uniform
from lcm_distill.diffusion.schedule import lognormal_sigmas
from lcm_distill.diffusion.solvers import SOLVERS
from lcm_distill.models.checkpoint import serialise
from lcm_distill.pipeline.atomic import commit_bytes, file_sha256
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.stages.cache import cache_fingerprint, open_batches
from lcm_distill.stages.networks import load_teacher, student_from_teacher, teacher_path
from lcm_distill.stages.training import Training


def distill(config: Config, run: RunFolder) -> Iterator[Progress]:
    """Train the student and publish its average as the run's `student.safetensors`."""
    run.require(teacher_path(config), "set model.teacher to a checkpoint, or make one with `lcm pretrain`")
    training = prepare(config, run)
    yield from training.run()
    commit_bytes(run.student, serialise(training.average, describe_student(config)))


def describe_student(config: Config) -> dict[str, Any]:
    """What a student's checkpoint says of itself: how to rebuild it and how to sample from it."""
    return {
        "role": "student",
        "model": config.model.model_dump(exclude={"teacher"}),
        "guidance_range": config.distill.guidance_range,
        "sigmas": config.evaluate.student_sigmas,
    }


def fingerprint(config: Config) -> str:
    """Identity of the student that this configuration trains."""
    return digest([
        config.fingerprint("model", "diffusion", "distill"),
        cache_fingerprint(config),
        file_sha256(teacher_path(config)),
    ])  # fmt: skip


def prepare(config: Config, run: RunFolder) -> Training:
    """The student's training, ready to run."""
    device = resolve_device(config.device)
    settings, sigma_data, sigma_min = config.distill, config.diffusion.sigma_data, config.diffusion.sigma_min
    batches = open_batches(config, run, settings.batch_size)
    teacher = load_teacher(config).to(device)
    torch.manual_seed(stable_hash(f"student {config.seed}"))  # the guidance embedder's first layer is random
    student = student_from_teacher(config).to(device)
    target = copy.deepcopy(student).requires_grad_(False)

    def loss(step: int) -> Tensor:
        batch = batches[step]
        clean, captions = batch.to(device)
        noise = normal(config.seed, "distill noise", step, batch.rows, clean.shape[1:]).to(device)
        sigma, guidance = (draw.to(device) for draw in draw_levels(config, settings, step, batch.rows))
        return consistency_loss(
            student=consistency_function(student, sigma_data, sigma_min, captions, guidance),
            target=consistency_function(target, sigma_data, sigma_min, captions, guidance),
            teacher=guided_denoiser(teacher, sigma_data, captions, guidance),
            solver=SOLVERS[settings.solver],
            clean=clean,
            noise=noise,
            sigma=sigma,
            sigma_next=shrink_sigma(sigma, settings.gap_ratio, sigma_min, settings.snap_below),
            huber=settings.huber,
        ).mean()

    return Training(
        label="distill",
        folder=run.distill,
        fingerprint=fingerprint(config),
        settings=settings,
        model=student,
        average=copy.deepcopy(student).requires_grad_(False),
        loss=loss,
        after_step=lambda: update_average(target, student, settings.target_decay),
        extra={"target": target},
    )


def draw_levels(config: Config, settings: DistillConfig, step: int, rows: Any) -> tuple[Tensor, Tensor]:
    """Noise levels and guidance scales of a batch, each (B,).

    Levels reach down to where a pair still fits above sigma_min.
    """
    lowest = config.diffusion.sigma_min / settings.gap_ratio
    draws = normal(config.seed, "distill sigma", step, rows, ())
    sigma = lognormal_sigmas(draws, settings.sigma_mean, settings.sigma_std, lowest, config.diffusion.sigma_max)
    pinned = uniform(config.seed, "sigma max", step, rows) < settings.sigma_max_share
    sigma = torch.where(pinned, config.diffusion.sigma_max, sigma)
    low, high = settings.guidance_range
    return sigma, low + (high - low) * uniform(config.seed, "guidance", step, rows)
