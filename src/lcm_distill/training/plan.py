# pyarrow ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""Plans of trainings: parameters, operations, memory, disk space and time, without running them."""

import json
from collections.abc import Mapping
from typing import Any

import torch

from lcm_distill import assets
from lcm_distill.config import Config, EncodersConfig, EngineConfig, ModelConfig, OptimiserConfig
from lcm_distill.core.device import resolve_device
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.models.networks import teacher_path
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training import budget
from lcm_distill.training.fake_step import memory_per_sample
from lcm_distill.training.objective_registry import build_objective, teacher_evaluations
from lcm_distill.training.optimiser import MOMENT_BYTES

CLIP_TOKENS = 77
GPU_80_GB = 80 * 10**9


def plan_pretraining(config: Config, run: RunFolder) -> dict[str, Any]:
    """Figures of a teacher's training.

    Raises:
        UserError: the configuration has no [pretrain] section.
    """
    settings = config.pretrain
    if settings is None:
        raise UserError("pretrain is missing: this configuration has no [pretrain] section")
    return {
        **_training(config.model, settings, guidance_embedding=False),
        "cache": Cache.open(config, run).storage.locate(),
        "start": settings.start,
        "mask_ratio": settings.mask_ratio,
        "share_of_own_cache": settings.own_share,
    }


def plan_distillation(config: Config, run: RunFolder) -> dict[str, Any]:
    """Figures of a distillation."""
    teacher = teacher_path(config.model)
    return {
        **_training(config.model, config.distill, guidance_embedding=True),
        "cache": Cache.open(config, run).storage.locate(),
        "teacher": str(teacher),
        "teacher_present": teacher.is_file(),
        "objective": config.distill.objective,
        "teacher_forwards_per_sample": 2 * teacher_evaluations(config.distill),
        **_distill_budget(config, run),
    }


def _training(model: ModelConfig, settings: OptimiserConfig, guidance_embedding: bool) -> dict[str, Any]:
    return {
        "network": model.arch,
        "parameters": budget.count_parameters(budget.meta_network(model, guidance_embedding)),
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "samples": settings.steps * settings.batch_size,
    }


def states_of_distillation(config: Config) -> tuple[dict[str, float], float]:
    """What a distillation holds on one rank beside activations, bytes by what they are of; bytes of its checkpoint."""
    settings = config.distill
    student, teacher = (budget.meta_network(config.model, guidance_embedding) for guidance_embedding in (True, False))
    count, trained = budget.count_parameters(student), budget.count_trained(config.model, settings.lora)
    averages = 2 if build_objective(settings, config.diffusion).uses_target and settings.target_decay else 1
    moments, in_critic = MOMENT_BYTES[settings.moments], count if settings.matching.weight else 0
    low = budget.count_low_precision(student) if config.engine.precision == "bfloat16" else 0
    copied = 1 + bool(averages > 1) + bool(in_critic)  # trained or averaged, and called: student, target, critic
    states = {
        "student": 4 * count,
        "gradients": 4 * trained,
        "optimiser": moments * trained,
        "averages": 4 * trained * averages,
        "critic": (4 + 4 + moments) * in_critic,
        "copies_to_compute_with": 2 * low * copied if config.engine.sharding == "none" else 0,
        "teacher": 4 * budget.count_parameters(teacher) - 2 * (budget.count_low_precision(teacher) if low else 0),
    }
    return states, (1 + averages) * states["student"] + states["optimiser"] + (4 + moments) * in_critic


def _distill_budget(config: Config, run: RunFolder) -> dict[str, Any]:
    """Operations, bytes and hours on one rank."""
    tokens, settings = caption_tokens(config.encoders), config.distill
    student, teacher = (budget.meta_network(config.model, guidance_embedding) for guidance_embedding in (True, False))
    flop = budget.distill_flop(config.model, settings, tokens)
    states, checkpoint = states_of_distillation(config)
    device = resolve_device(config.device)
    seconds = (
        flop * settings.batch_size / (budget.UTILISATION * budget.matmul_rate(device, products_dtype(config.engine)))
    )
    checkpoints = (config.engine.keep_checkpoints + 1) * checkpoint  # one more while it is written
    return {
        "trained_parameters": budget.count_trained(config.model, settings.lora),
        "teacher_parameters": budget.count_parameters(teacher),
        "gflop_per_forward": _figures(budget.forward_flop(student, tokens) / 1e9),
        "gflop_per_sample": _figures(flop / 1e9),
        "tflop_per_step": _figures(flop * settings.batch_size / 1e12),
        "gb_of_states": {name: _gb(size) for name, size in states.items()},
        **_micro_batches(_memory(config, tokens), settings.batch_size, sum(states.values()), device),
        "gb_of_a_checkpoint": _gb(checkpoint),
        "precision": config.engine.precision,
        "gb_on_disk": _gb(checkpoints + states["student"] + _cache_bytes(Cache.open(config, run), tokens)),
        "hours_here": round(seconds * settings.steps / 3600, 2),
    }


def products_dtype(engine: EngineConfig) -> torch.dtype:
    """The dtype of the networks' matrix products."""
    return torch.bfloat16 if engine.precision == "bfloat16" else torch.float32


def _memory(config: Config, tokens: int) -> dict[str, int]:
    """Bytes of one sample's passes with activations kept and recomputed; none where they cannot be counted."""
    if config.distill.objective_settings.forward_mode:
        return {}
    return {
        name: memory_per_sample(config.changed([f"engine.activation_checkpointing={recompute}"], "plan"), tokens)
        for name, recompute in (("kept", "false"), ("recomputed", "true"))
    }


def _micro_batches(memory: Mapping[str, int], batch_size: int, states: float, device: torch.device) -> dict[str, Any]:
    """The largest micro-batches that fit here and in 80 GB, with activations kept or recomputed; None if none does.

    Args:
        memory: as `_memory` has it. states: as `largest_micro_batch` takes it.
    """
    sizes = {"80_gb": GPU_80_GB, "here": budget.device_memory(device)}
    figures: dict[str, Any] = {"gb_here": _gb(sizes["here"])}
    if not memory:
        return figures | {"micro_batches": "not counted: forward-mode derivatives do not run without values"}
    for name, per_sample in memory.items():
        figures[f"gb_per_sample_{name}"] = _gb(per_sample)
        for where, size in sizes.items():
            largest = min(largest_micro_batch(size, states, per_sample), batch_size)
            figures[f"micro_batch_{where}_{name}"] = largest or None
            if where == "80_gb":
                figures[f"gb_used_{name}"] = _gb(states + largest * per_sample) if largest else None
    return figures


def largest_micro_batch(size: int, states: float, per_sample: int) -> int:
    """The most samples that fit into `size` bytes beside the states; 0 if not even one does.

    Args:
        states: bytes of weights, gradients, moments and averages. per_sample: bytes of one sample's passes.
    """
    return max(0, int(((1 - budget.MARGIN) * size - states) // per_sample))


def _cache_bytes(cache: Cache, tokens: int) -> int:
    """Bytes of the latents and captions, of so many tokens, that training reads; 0 before the data set is listed."""
    catalog = cache.find_catalog()
    if catalog is None:
        return 0
    latents, captions = cache.layout.latents(1).row_bytes, cache.layout.text(1, tokens).row_bytes
    return len(catalog.samples) * latents + len(catalog.captions) * captions


def caption_tokens(encoders: EncodersConfig) -> int:
    """Tokens of an embedded caption: CLIP's, or those of the embedded text encoder."""
    if encoders.text == "shapes":
        return json.loads((assets.TEXT_ENCODER / "config.json").read_text())["tower"]["context_length"]
    return CLIP_TOKENS


def _gb(size: float) -> float:
    return round(size / 1e9, 3)


def _figures(operations: float) -> float:
    """Of a network of any size: five significant figures."""
    return float(f"{operations:.5g}")
