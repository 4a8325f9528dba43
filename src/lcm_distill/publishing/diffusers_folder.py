# diffusers does not declare its version as exported.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportUnknownArgumentType=false
"""A folder that `diffusers.DiffusionPipeline.from_pretrained` opens where this package is not installed."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lcm_distill.encoders.images import load_image_encoder
from lcm_distill.models import VARIANTS
from lcm_distill.models.checkpoint import serialise
from lcm_distill.publishing.clip_text_model import write_text_encoder, write_tokenizer
from lcm_distill.publishing.published_model import Published
from lcm_distill.publishing.standalone import standalone

REMOTE_CODE = "lcm_distill.publishing.remote_code"
TEACHER_STEPS = 30
"""Default steps of Heun's method."""


def write_diffusers(folder: Path, model: Published, with_encoders: bool) -> None:
    """Write a model into a folder that exists.

    Args:
        with_encoders: VAE and text encoder as well; otherwise the index names them, and they are given when the
            folder is opened.

    Raises:
        UserError: an encoder cannot be loaded, or not be written.
    """
    for name in ("transformer", "scheduler", "tokenizer"):
        (folder / name).mkdir()
    _write_json(folder / "model_index.json", _index(model, with_encoders))
    _write_json(folder / "modular_config.json", _blocks())
    _write_json(folder / "modular_model_index.json", _versioned("ModularPipeline", **_guidance(model)))
    _write_code(folder / "pipeline.py")
    _write_code(folder / "block.py")
    _write_code(folder / "transformer" / "microdit.py")
    _write_code(folder / "scheduler" / "microdit_scheduler.py")
    _write_json(folder / "transformer" / "config.json", _network(model))
    _write_json(folder / "scheduler" / "scheduler_config.json", _scheduler(model))
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(serialise(model.weights, model.description))
    write_tokenizer(folder / "tokenizer")
    if with_encoders:
        (folder / "text_encoder").mkdir()
        write_text_encoder(model.encoders, folder / "text_encoder", folder / "tokenizer")
        vae = load_image_encoder(model.encoders.vae, model.encoders.weights).vae
        vae.register_to_config(_name_or_path=model.vae_repository)  # not where it lies on this machine
        vae.save_pretrained(folder / "vae")


def _write_code(path: Path) -> None:
    path.write_text(standalone(f"{REMOTE_CODE}.{path.stem}"))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _versioned(name: Any, **settings: Any) -> dict[str, Any]:
    import diffusers

    return {"_class_name": name, "_diffusers_version": diffusers.__version__, **settings}


def _index(model: Published, with_encoders: bool) -> dict[str, Any]:
    return _versioned(
        ["pipeline", "MicroDiTPipeline"],
        transformer=["microdit", "MicroDiTModel"],
        scheduler=["microdit_scheduler", "MicroDiTScheduler"],
        tokenizer=["transformers", "CLIPTokenizer"],
        text_encoder=["transformers", "CLIPTextModel"] if with_encoders else [None, None],
        vae=["diffusers", "AutoencoderKL"] if with_encoders else [None, None],
        **_guidance(model),
        text_encoder_name=model.text_encoder_repository,
        vae_name=model.vae_repository,
    )


def _guidance(model: Published) -> dict[str, float | None]:
    """The scale where none is given, and those that a student was trained with."""
    low, high = (model.sampling and model.sampling.guidance_range) or (None, None)
    return {"guidance_scale": model.guidance, "min_guidance_scale": low, "max_guidance_scale": high}


def _blocks() -> dict[str, Any]:
    return _versioned("MicroDiTBlocks", auto_map={"ModularPipelineBlocks": "block.MicroDiTBlocks"})


def _network(model: Published) -> dict[str, Any]:
    sizes = model.sizes
    return _versioned(
        "MicroDiTModel",
        variant=asdict(VARIANTS[sizes.arch]),
        latent_size=sizes.latent_size,
        in_channels=sizes.in_channels,
        caption_channels=sizes.caption_channels,
        pos_interp_scale=sizes.pos_interp_scale,
        guidance_embedding=model.sampling is not None,
    )


def _scheduler(model: Published) -> dict[str, Any]:
    settings = model.diffusion.model_dump()
    if model.sampling is None:
        return _versioned("MicroDiTScheduler", sampler="heun", default_steps=TEACHER_STEPS, sigmas=None, **settings)
    steps = model.sampling.default_steps
    numbers = [steps] if model.sampling.phases else model.sampling.sigmas
    return _versioned(
        "MicroDiTScheduler",
        sampler=model.sampling.sampler(steps).name,
        default_steps=steps,
        sigmas={str(number): list(model.sampling.sampler(number).sigmas) for number in numbers},
        **settings,
    )
