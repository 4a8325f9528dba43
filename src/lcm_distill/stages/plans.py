"""What a stage would do, without doing it."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from lcm_distill import assets
from lcm_distill.config import Config, OptimiserConfig
from lcm_distill.config.ablation import LAST, Step
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache import cache
from lcm_distill.data.cache.catalog import SAMPLES_FILE
from lcm_distill.evaluation.features import find_extractor
from lcm_distill.evaluation.image_sets import image_format
from lcm_distill.evaluation.prompts import find_prompts
from lcm_distill.evaluation.references import require_reference
from lcm_distill.evaluation.samplings import samplings
from lcm_distill.models.networks import teacher_path
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.ablate import changes, trials
from lcm_distill.stages.evaluate import require_models
from lcm_distill.training import budget
from lcm_distill.training.checkpoints import Checkpoints
from lcm_distill.training.fake_step import memory_per_sample
from lcm_distill.training.objectives import build_objective
from lcm_distill.training.optimiser import MOMENT_BYTES

CLIP_TOKENS = 77
GPU_80_GB = 80 * 10**9
BYTES_A_PIXEL = {"PNG": 2.0, "JPEG": 0.5}
"""Of photographs, roughly."""


def plan(stage: str, config: Config, run: RunFolder, images_only: bool = False) -> dict[str, Any]:
    """Figures of a stage's work: how much, with what, and how much of it is already done.

    Args:
        images_only: as `lcm evaluate` has it.
    """
    evaluation = partial(_evaluate, images_only=images_only)
    plans = {
        "precompute": _precompute, "pretrain": _pretrain, "distill": _distill, "schedule": _schedule,
        "evaluate": evaluation,
    }  # fmt: skip
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
        "images": config.evaluate.images * sum(len(trial.config.evaluate.student_steps) for trial in chosen),
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
        "root": str(config.data.root or run.images),
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
    settings = config.pretrain
    if settings is None:
        raise UserError("pretrain is missing: this configuration has no [pretrain] section")
    return {
        **_training(config, settings, guidance_embedding=False),
        "start": settings.start,
        "mask_ratio": settings.mask_ratio,
        "share_of_own_cache": settings.own_share,
    }


def _distill(config: Config, run: RunFolder) -> dict[str, Any]:
    teacher = teacher_path(config)
    return {
        **_training(config, config.distill, guidance_embedding=True),
        "teacher": str(teacher),
        "teacher_present": teacher.is_file(),
        "objective": config.distill.objective,
        "teacher_forwards_per_sample": 2 * budget.teacher_evaluations(config),
        **_distill_budget(config, run),
    }


def _schedule(config: Config, run: RunFolder) -> dict[str, Any]:
    return {
        "numbers_of_steps": config.schedule.steps,
        "samples_a_trial": config.schedule.samples,
        "guidance": config.evaluate.guidance[0],
        "student_present": run.student.is_file(),
    }


def _distill_budget(config: Config, run: RunFolder) -> dict[str, Any]:
    """Operations, bytes and hours on one rank."""
    tokens, settings = caption_tokens(config, run), config.distill
    student, teacher = (budget.on_meta(config.model, guidance_embedding) for guidance_embedding in (True, False))
    flop = budget.distill_flop(config, tokens)
    count, trained = budget.parameters(student), budget.trained_parameters(config)
    averages = 2 if build_objective(config).uses_target and settings.target_decay else 1
    moments, in_critic = MOMENT_BYTES[settings.moments], count if settings.matching.weight else 0
    low = budget.lowered_parameters(student) if config.engine.precision == "bfloat16" else 0
    copied = 1 + bool(averages > 1) + bool(in_critic)  # what changes and is called: student, target, critic
    states = {
        "student": 4 * count,
        "gradients": 4 * trained,
        "optimiser": moments * trained,
        "averages": 4 * trained * averages,
        "critic": (4 + 4 + moments) * in_critic,
        "copies_to_compute_with": 2 * low * copied if config.engine.sharding == "none" else 0,
        "teacher": 4 * budget.parameters(teacher) - 2 * (budget.lowered_parameters(teacher) if low else 0),
    }
    device = resolve_device(config.device)
    seconds = flop * settings.batch_size / (budget.UTILISATION * budget.matmul_rate(device, computed_in(config)))
    checkpoint = (1 + averages) * states["student"] + states["optimiser"] + (4 + moments) * in_critic
    checkpoints = (config.engine.keep_checkpoints + 1) * checkpoint  # one more is there while it is written
    return {
        "trained_parameters": trained,
        "teacher_parameters": budget.parameters(teacher),
        "gflop_per_forward": round(budget.forward_flop(student, tokens) / 1e9, 1),
        "gflop_per_sample": round(flop / 1e9, 1),
        "tflop_per_step": round(flop * settings.batch_size / 1e12, 1),
        "gb_of_states": {name: _gb(size) for name, size in states.items()},
        **_micro_batches(config, tokens, sum(states.values()), device),
        "gb_of_a_checkpoint": _gb(checkpoint),
        "precision": config.engine.precision,
        "gb_on_disk": _gb(checkpoints + states["student"] + _cache_bytes(config, run)),
        "hours_here": round(seconds * settings.steps / 3600, 2),
    }


def computed_in(config: Config) -> torch.dtype:
    """The dtype of the products that networks take."""
    return torch.bfloat16 if config.engine.precision == "bfloat16" else torch.float32


def _micro_batches(config: Config, tokens: int, states: int, device: torch.device) -> dict[str, Any]:
    """The largest micro-batch that fits here and in 80 GB, with activations kept or computed again; None: none does."""
    sizes = {"80_gb": GPU_80_GB, "here": budget.device_memory(device)}
    figures: dict[str, Any] = {"gb_here": _gb(sizes["here"])}
    if config.distill.objective == "scm":
        return figures | {"micro_batches": "not counted: forward-mode derivatives do not run on fake tensors"}
    for name, recompute in (("kept", "false"), ("recomputed", "true")):
        per_sample = memory_per_sample(config.changed([f"engine.activation_checkpointing={recompute}"], "plan"), tokens)
        figures[f"gb_per_sample_{name}"] = _gb(per_sample)
        for where, size in sizes.items():
            largest = min(largest_micro_batch(size, states, per_sample), config.distill.batch_size)
            figures[f"micro_batch_{where}_{name}"] = largest or None
            if where == "80_gb":
                figures[f"gb_used_{name}"] = _gb(states + largest * per_sample) if largest else None
    return figures


def largest_micro_batch(size: int, states: float, per_sample: int) -> int:
    """The most samples that fit into `size` bytes beside weights and the like; 0 if not even one does."""
    return max(0, int(((1 - budget.MARGIN) * size - states) // per_sample))


def _cache_bytes(config: Config, run: RunFolder) -> int:
    """Bytes of latents and captions that training reads; 0 while they are not numbered."""
    storage = cache.cache_storage(config, run)
    if not storage.sizes([SAMPLES_FILE]):
        return 0
    catalog = cache.read_catalog(storage)
    captions = cache.text_field(config, 1, caption_tokens(config, run)).row_bytes
    return len(catalog.samples) * cache.latents_field(config, 1).row_bytes + len(catalog.captions) * captions


def caption_tokens(config: Config, run: RunFolder) -> int:
    """Tokens to a caption: those of CLIP, or of the text tower that ships."""
    if config.encoders.text == "shapes":
        return json.loads((assets.TEXT_ENCODER / "config.json").read_text())["tower"]["context_length"]
    return CLIP_TOKENS


def _gb(size: float) -> float:
    return round(size / 1e9, 3)


def _evaluate(config: Config, run: RunFolder, images_only: bool) -> dict[str, Any]:
    ways, images = samplings(config), config.evaluate.images
    form = image_format(config)
    pixels = len(ways) * images * config.resolution**2
    return {
        "samplings": [f"{sampling.title}, guidance {sampling.guidance:g}" for sampling in ways],
        "images": images * len(ways),
        "shards": -(-images // config.evaluate.shard_images) * len(ways),
        "network_evaluations": images * sum(sampling.evaluations for sampling in ways),
        "files": f"{form.format}, quality {form.quality}" if form.quality else form.format,
        "disk_bytes_about": int(pixels * BYTES_A_PIXEL[form.format]),
        "protocols": [] if images_only else list(config.evaluate.protocols),
        "missing": _missing(config, run, images_only),
    }


def _missing(config: Config, run: RunFolder, images_only: bool) -> list[str]:
    """What stands against evaluating, a line each."""
    checks: list[Callable[[], object]] = [partial(require_models, config, run), partial(find_prompts, config, run)]
    checks += [
        partial(check, config, protocol)
        for protocol in (() if images_only else config.evaluate.protocols)
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
    return {
        "network": config.model.arch,
        "parameters": budget.parameters(budget.on_meta(config.model, guidance_embedding)),
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "samples": settings.steps * settings.batch_size,
    }
