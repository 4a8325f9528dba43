"""Code that generates an image with a published model, for its card."""

import json

from lcm_distill.publishing.published_model import Published

CAPTIONS = {"shapes": "a large red circle in the centre on a navy background"}
"""By the name of the text encoder; `shapes` knows only shapes."""


def by_kind_of_pipeline(model: Published, caption: str, where: str, with_encoders: bool) -> dict[str, str]:
    """Code for a folder that `publishing.diffusers_folder` wrote, by the sentence before it.

    Args:
        caption: of the image, as below.
        where: the folder, or the repository that it is uploaded to.
        with_encoders: whether the folder holds VAE and text encoder.
    """
    return {
        "": _as_one(model, caption, where, with_encoders),
        "As a modular pipeline, whose blocks can be exchanged:": _as_blocks(model, caption, where, with_encoders),
    }


def _as_one(model: Published, caption: str, where: str, with_encoders: bool) -> str:
    given = ["trust_remote_code=True", *([] if with_encoders else ["vae=vae", "text_encoder=text_encoder"])]
    return "\n".join([
        *_beginning(model, "DiffusionPipeline", with_encoders),
        f'pipeline = DiffusionPipeline.from_pretrained("{where}", {", ".join(given)})',
        f'image = pipeline({_literal(caption)}, guidance_scale={model.guidance:g}).images[0]',
        'image.save("image.png")',
    ])  # fmt: skip


def _as_blocks(model: Published, caption: str, where: str, with_encoders: bool) -> str:
    names = "" if with_encoders else ', names=["tokenizer", "transformer", "scheduler"]'
    given = [] if with_encoders else ["pipeline.update_components(vae=vae, text_encoder=text_encoder)"]
    return "\n".join([
        *_beginning(model, "ModularPipeline", with_encoders),
        f'pipeline = ModularPipeline.from_pretrained("{where}", trust_remote_code=True)',
        f'pipeline.load_components(pretrained_model_name_or_path="{where}"{names})',
        *given,
        f'image = pipeline(prompt={_literal(caption)}, guidance_scale={model.guidance:g}, output="images")[0]',
        'image.save("image.png")',
    ])  # fmt: skip


def _beginning(model: Published, pipeline: str, with_encoders: bool) -> list[str]:
    """Imports of a pipeline's class, and VAE and text encoder where the folder does not hold them."""
    if with_encoders:
        return [f"from diffusers import {pipeline}", ""]
    vae, text = model.vae_repository or "FOLDER/vae", model.text_encoder_repository or "FOLDER/text_encoder"
    subfolder = ', subfolder="vae"' if model.vae_repository else ""
    return [
        f"from diffusers import AutoencoderKL, {pipeline}",
        "from transformers import CLIPTextModel",
        "",
        *(
            ["# FOLDER: what `lcm export --format diffusers --with-encoders` writes of a run with these encoders"]
            if "FOLDER" in vae + text
            else []
        ),
        f'vae = AutoencoderKL.from_pretrained("{vae}"{subfolder})',
        f'text_encoder = CLIPTextModel.from_pretrained("{text}")',
    ]


def with_onnx(caption: str, where: str) -> str:
    """Code for a folder that `publishing.onnx_folder` wrote: an image in one step.

    Args:
        where: the folder.
    """
    return f"""
import json
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = Path("{where}")


def run(name, **inputs):
    return onnxruntime.InferenceSession(folder / f"{{name}}.onnx").run(None, inputs)[0]


settings = json.loads((folder / "sampling.json").read_text())
tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode({_literal(caption)}).ids
captions = run("text_encoder", tokens=np.array([tokens]))
sigma = np.float32([settings["sigmas"][str(settings["default_steps"])][0]])
noise = np.random.default_rng(0).standard_normal((1, *settings["latents"]), np.float32)
guidance = np.float32([settings["guidance_scale"]])
latents = run("student", latents=sigma * noise, sigma=sigma, captions=captions, guidance=guidance)
image = run("decoder", latents=latents)[0]  # (3, H, W), from 0 to 1
"""


def with_the_package(model: Published, caption: str, where: str) -> str:
    """Code for a file of weights.

    Args:
        where: the file.
    """
    opened = ["from lcm_distill.api import open_model", "", f'model = open_model("{where}")']
    if model.sampling is None:
        sizes = model.sizes
        opened = [
            "from lcm_distill.api import create_latent_diffusion",
            "",
            "model = create_latent_diffusion(",
            f'    vae_name="{model.encoders.vae}", text_encoder_name="{model.encoders.text}", dit_arch="{sizes.arch}",',
            f'    dit_ckpt_path="{where}", latent_res={sizes.latent_size}, in_channels={sizes.in_channels},',
            f"    pos_interp_scale={sizes.pos_interp_scale:g},",
            ")",
        ]
    return "\n".join(
        [*opened, f"images = model.generate({_literal(caption)}, guidance_scale={model.guidance:g}, seed=0)"]
    )


def caption_for(text_encoder: str) -> str:
    """A caption that a model with this text encoder, `encoders.text`, makes an image of."""
    return CAPTIONS.get(text_encoder, "an astronaut riding a horse")


def _literal(caption: str) -> str:
    """A caption in Python; what JSON escapes in a text means the same there."""
    return json.dumps(caption, ensure_ascii=False)
