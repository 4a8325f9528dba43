# The types that diffusers declares do not describe what it returns.
# pyright: reportMissingTypeStubs=false, reportPrivateImportUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportIncompatibleVariableOverride=false
# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false, reportArgumentType=false
"""Text to image with MicroDiT as blocks of a modular pipeline of diffusers."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from diffusers.modular_pipelines import (
    ComponentSpec,
    ConfigSpec,
    InputParam,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from lcm_distill.publishing.remote_code.microdit import MicroDiTModel
from lcm_distill.publishing.remote_code.microdit_scheduler import MicroDiTScheduler
from lcm_distill.publishing.remote_code.sampling import (
    OUTPUT_TYPES,
    checked_guidance,
    checked_prompts,
    decode,
    encode_prompts,
    require_among,
    sample,
)

WHERE = "give load_components(pretrained_model_name_or_path=...)"
"""In place of the folder, which the file does not know."""


def component(name: str, kind: type) -> ComponentSpec:
    """A component in the folder of its name."""
    return ComponentSpec(name, kind, pretrained_model_name_or_path=WHERE, subfolder=name)


class EncodePrompts(ModularPipelineBlocks):
    """Prompts to hidden states of the text encoder."""

    description = "Encodes prompts."
    expected_components = [component("tokenizer", CLIPTokenizer), component("text_encoder", CLIPTextModel)]  # noqa: RUF012
    inputs = [InputParam("prompt", str | list[str], required=True, description="One prompt or several.")]  # noqa: RUF012
    intermediate_outputs = [OutputParam("prompt_embeds", Tensor, "Hidden states (B, L, C).")]  # noqa: RUF012

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Fill in `prompt_embeds`."""
        block: Any = self.get_block_state(state)
        prompts = checked_prompts(block.prompt)
        block.prompt_embeds = encode_prompts(components.tokenizer, components.text_encoder, prompts)
        self.set_block_state(state, block)
        return components, state


class Denoise(ModularPipelineBlocks):
    """Noise to latents, by the model's own sampler."""

    description = "Samples latents."
    expected_components = [component("transformer", MicroDiTModel), component("scheduler", MicroDiTScheduler)]  # noqa: RUF012
    expected_configs = [  # noqa: RUF012
        ConfigSpec("guidance_scale", None, "Where none is given; modular_model_index.json has the model's."),
        ConfigSpec("min_guidance_scale", None, "The least that a student was trained with, from there as well."),
        ConfigSpec("max_guidance_scale", None, "The most that a student was trained with, from there as well."),
    ]
    inputs = [  # noqa: RUF012
        InputParam("prompt_embeds", Tensor, required=True, description="Hidden states (B, L, C)."),
        InputParam("num_inference_steps", int, description="Number of steps; the model has a default."),
        InputParam("guidance_scale", float, description="1 is no guidance; the model has a default."),
        InputParam("generator", torch.Generator | list[torch.Generator], description="One, or one for each image."),
        InputParam("latents", Tensor, description="Initial noise, standard normal (B, C, h, w)."),
    ]
    intermediate_outputs = [OutputParam("latents", Tensor, "Scaled latents (B, C, h, w).")]  # noqa: RUF012

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Replace `latents` by what the sampler makes of them."""
        block: Any = self.get_block_state(state)
        captions = block.prompt_embeds.to(components.transformer.device)
        guidance = checked_guidance(components.config, block.guidance_scale)
        components.scheduler.set_timesteps(block.num_inference_steps, device=captions.device)
        block.latents = sample(
            components.transformer, components.scheduler, captions, guidance, block.generator, block.latents
        )
        self.set_block_state(state, block)
        return components, state


class Decode(ModularPipelineBlocks):
    """Latents to images."""

    description = "Decodes latents."
    expected_components = [component("vae", AutoencoderKL)]  # noqa: RUF012
    inputs = [  # noqa: RUF012
        InputParam("latents", Tensor, required=True, description="Scaled latents (B, C, h, w)."),
        InputParam("output_type", str, "pil", description="`pil`, `np` or `pt`; latents are an output."),
    ]
    intermediate_outputs = [OutputParam("images", list, "Images in the form of `output_type`.")]  # noqa: RUF012

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Fill in `images`."""
        block: Any = self.get_block_state(state)
        require_among("output_type", [block.output_type], OUTPUT_TYPES)
        block.images = VaeImageProcessor().postprocess(decode(components.vae, block.latents), block.output_type)
        self.set_block_state(state, block)
        return components, state


class MicroDiTBlocks(SequentialPipelineBlocks):
    """Text to image: prompts, latents, images."""

    description = "Text to image with MicroDiT."
    block_classes = [EncodePrompts, Denoise, Decode]  # noqa: RUF012
    block_names = ["text_encoder", "denoise", "decode"]  # noqa: RUF012
