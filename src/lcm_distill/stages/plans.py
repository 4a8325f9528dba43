"""What a stage would do, without doing it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from lcm_distill.config import Config, OptimiserConfig
from lcm_distill.data.catalog import SAMPLES_FILE
from lcm_distill.errors import UserError
from lcm_distill.pipeline.checkpoints import Checkpoints
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages import cache
from lcm_distill.stages.ablate import changes, trials
from lcm_distill.stages.chain import LAST, Step
from lcm_distill.stages.drawing import picture_format
from lcm_distill.stages.evaluate import require_models
from lcm_distill.stages.extraction import find_extractor
from lcm_distill.stages.networks import build_network, teacher_path
from lcm_distill.stages.prompts import find_prompts
from lcm_distill.stages.references import require_reference
from lcm_distill.stages.samplings import samplings

BYTES_A_PIXEL = {"PNG": 2.0, "JPEG": 0.5}
"""Of photographs, roughly."""


def plan(stage: str, config: Config, run: RunFolder, pictures_only: bool = False) -> dict[str, Any]:
    """Figures of a stage's work: how much, with what, and how much of it is already done.

    Args:
        pictures_only: as `lcm evaluate` has it.
    """
    evaluation = partial(_evaluate, pictures_only=pictures_only)
    plans = {"precompute": _precompute, "pretrain": _pretrain, "distill": _distill, "evaluate": evaluation}
    return plans[stage](config, run)


def plan_ablation(config: Config, run: RunFolder, steps: Sequence[Step], seeds: int) -> dict[str, Any]:
    """Steps with what each changes, and how far each seed's training has come.

    Raises:
        UserError: a training that is already here has other settings.
    """
    chosen = trials(config, run, steps, seeds)
    for trial in chosen:
        trial.run.refuse_other_settings(trial.config)
    return {
        "trainings": len(chosen),
        "done": sum(trial.run.student.is_file() for trial in chosen),
        "pictures": config.evaluate.images * sum(len(trial.config.evaluate.student_steps) for trial in chosen),
        "steps": [
            {
                "step": step.name,
                "beside": step.base.name if step.base else LAST,
                "changes": changes(config, step),
                "trained_steps": {trial.seed: _trained_steps(trial.run) for trial in chosen if trial.step == step},
                "of_steps": config.distill.steps,
            }
            for step in steps
        ],
    }


def _trained_steps(run: RunFolder) -> int:
    return max(Checkpoints(run.distill / "checkpoints", "").steps(), default=0)


def _precompute(config: Config, run: RunFolder) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "source": config.data.source,
        "root": str(config.data.root or run.pictures),
        "cache": cache.cache_storage(config, run).locate(),
        "vae": config.encoders.vae,
        "text_encoder": config.encoders.text,
        "weights": config.encoders.weights,
        "latent_bytes_per_sample": cache.latents_field(config, 1).row_bytes,
    }
    storage = cache.cache_storage(config, run)
    if storage.sizes([SAMPLES_FILE]):
        tasks = cache.plan(config, cache.read_catalog(storage))
        figures |= {"tasks": len(tasks), "done": len(cache.open_manifest(storage).done(tasks))}
    return figures


def _pretrain(config: Config, run: RunFolder) -> dict[str, Any]:
    if config.pretrain is None:
        raise UserError("pretrain is missing: this configuration has no [pretrain] section")
    return _training(config, config.pretrain, guidance_embedding=False)


def _distill(config: Config, run: RunFolder) -> dict[str, Any]:
    teacher = teacher_path(config)
    return {
        **_training(config, config.distill, guidance_embedding=True),
        "teacher": str(teacher),
        "teacher_present": teacher.is_file(),
        "objective": config.distill.objective,
        "teacher_forwards_per_sample": 2
        if config.distill.objective == "scm" or config.distill.solver == "euler"
        else 4,
    }


def _evaluate(config: Config, run: RunFolder, pictures_only: bool) -> dict[str, Any]:
    ways, images = samplings(config), config.evaluate.images
    form = picture_format(config)
    pixels = len(ways) * images * config.resolution**2
    return {
        "samplings": [f"{way.title}, guidance {way.guidance:g}" for way in ways],
        "images": images * len(ways),
        "shards": -(-images // config.evaluate.shard_images) * len(ways),
        "network_evaluations": images * sum(way.evaluations for way in ways),
        "files": f"{form.format}, quality {form.quality}" if form.quality else form.format,
        "disk_bytes_about": int(pixels * BYTES_A_PIXEL[form.format]),
        "protocols": [] if pictures_only else list(config.evaluate.protocols),
        "missing": _missing(config, run, pictures_only),
    }


def _missing(config: Config, run: RunFolder, pictures_only: bool) -> list[str]:
    """What stands against evaluating, a line each."""
    checks: list[Callable[[], object]] = [partial(require_models, config, run), partial(find_prompts, config, run)]
    checks += [
        partial(check, config, protocol)
        for protocol in (() if pictures_only else config.evaluate.protocols)
        for check in (require_reference, find_extractor)
    ]
    missing = []
    for check in checks:
        try:
            check()
        except UserError as error:
            missing.append(str(error))
    return missing


def _training(config: Config, settings: OptimiserConfig, guidance_embedding: bool) -> dict[str, Any]:
    with torch.device("meta"):
        network = build_network(config, guidance_embedding)
    return {
        "network": config.model.arch,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "samples": settings.steps * settings.batch_size,
    }
