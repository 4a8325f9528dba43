# The types that diffusers and transformers declare do not describe what they return.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportPrivateImportUsage=false, reportAttributeAccessIssue=false
# pyright: reportArgumentType=false, reportCallIssue=false
"""Text to image with MicroDiT, a teacher or a few-step student, in diffusers."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, ImagePipelineOutput, ModelMixin, SchedulerMixin
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from lcm_distill.core.numbers import require_number
from lcm_distill.publishing.remote_code.sampling import (
    OUTPUT_TYPES,
    AfterStep,
    checked_guidance,
    checked_prompts,
    decode,
    encode_prompts,
    require_among,
    sample,
)


def write_code(module: str, folder: Path) -> str:
    """Copy the file of an imported module into a folder, and return what the folder's index calls it."""
    source = Path(str(sys.modules[module].__file__))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / source.name).write_bytes(source.read_bytes())
    return source.stem


class MicroDiTPipeline(DiffusionPipeline):
    """Text to image.

    Args:
        transformer: the network. scheduler: its sampler. tokenizer: of CLIP.
        text_encoder, vae: what the network was trained with; where the folder does not hold them, give them to
            `from_pretrained`.
        guidance_scale: where none is given. min_guidance_scale, max_guidance_scale: what a student was trained with.
        text_encoder_name, vae_name: where text encoder and VAE are published.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["text_encoder", "vae"]  # noqa: RUF012
    _callback_tensor_inputs = ["latents", "prompt_embeds"]  # noqa: RUF012
    _interrupt = False

    def __init__(
        self,
        transformer: ModelMixin,
        scheduler: SchedulerMixin,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel | None = None,
        vae: AutoencoderKL | None = None,
        guidance_scale: float = 5.0,
        min_guidance_scale: float | None = None,
        max_guidance_scale: float | None = None,
        text_encoder_name: str | None = None,
        vae_name: str | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer, scheduler=scheduler, tokenizer=tokenizer, text_encoder=text_encoder, vae=vae
        )
        self.register_to_config(
            guidance_scale=guidance_scale, min_guidance_scale=min_guidance_scale,
            max_guidance_scale=max_guidance_scale, text_encoder_name=text_encoder_name, vae_name=vae_name,
        )  # fmt: skip
        self.image_processor = VaeImageProcessor()

    @property
    def interrupt(self) -> bool:
        """Whether no further step is made; a callback sets `_interrupt` to stop."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """Number of steps of the last images."""
        return len(self.scheduler.timesteps)

    @property
    def guidance_scale(self) -> float:
        """Guidance scale where none is given."""
        return self.config.guidance_scale

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Generate images of prompts.

        Args:
            prompt: one or several, unless `prompt_embeds` (B, L, C) are given: the text encoder's hidden states.
            num_inference_steps: a student has sigmas of its own for some numbers, and a default.
            guidance_scale: 1 is no guidance, 0 the null caption; by default what the model was evaluated with.
            num_images_per_prompt: images of each prompt, one after the other.
            generator: one, or one for each image; draws all noise.
            latents: the initial noise, standard normal (B, C, h, w).
            output_type: `pil`, `np`, `pt` or `latent`.
            return_dict: False for a tuple.
            callback_on_step_end: called with the pipeline, the index of the step, its sigma and the tensors that
                `callback_on_step_end_tensor_inputs` names: `latents` and `prompt_embeds`; may return others for them.
        """
        guidance = checked_guidance(self.config, guidance_scale)
        require_among("output_type", [output_type], [*OUTPUT_TYPES, "latent"])
        after_step = self._after_step(callback_on_step_end, callback_on_step_end_tensor_inputs)
        captions = self._captions(prompt, prompt_embeds, num_images_per_prompt)
        self.scheduler.set_timesteps(num_inference_steps, device=captions.device)
        images: Any = sample(
            self.transformer, self.scheduler, captions, guidance, generator, latents, after_step, self._progress
        )
        if output_type != "latent":
            images = self.image_processor.postprocess(decode(self._needed("vae"), images), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def save_config(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **options: Any) -> None:
        """Write the index, as `save_pretrained` does last, and the code without which the folder does not open."""
        super().save_config(save_directory, push_to_hub, **options)
        index_file = Path(save_directory) / self.config_name
        index = json.loads(index_file.read_text())
        index["_class_name"] = [write_code(__name__, index_file.parent), MicroDiTPipeline.__name__]
        for name in self.components:
            library, kind = index[name]
            if library and "." in library:  # a module's name and no library's: it came with the folder
                index[name] = [write_code(library, index_file.parent / name), kind]
        index_file.write_text(json.dumps(index, indent=2) + "\n")

    def _progress(self, timesteps: Tensor) -> Iterator[Tensor]:
        """The timesteps, up to an interruption."""
        self._interrupt = False
        return iter(takewhile(lambda _: not self._interrupt, self.progress_bar(timesteps)))

    def _after_step(self, callback: Callable[..., dict[str, Any] | None] | None, names: Sequence[str]) -> AfterStep:
        """What a callback of diffusers makes of latents and captions."""
        names = getattr(callback, "tensor_inputs", names) or ()
        require_among("callback_on_step_end_tensor_inputs", names, self._callback_tensor_inputs)

        def changed(index: int, sigma: Tensor, latents: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
            given = {"latents": latents, "prompt_embeds": captions}
            if callback is not None:
                given |= callback(self, index, sigma, {name: given[name] for name in names}) or {}
            return given["latents"], given["prompt_embeds"]

        return changed

    def _captions(self, prompt: str | Sequence[str] | None, prompt_embeds: Tensor | None, images: int) -> Tensor:
        """Hidden states (B * images, L, C) of as many images of each prompt."""
        require_number("num_images_per_prompt", images, 1, whole=True)
        if prompt_embeds is None:
            prompts = checked_prompts(prompt)
            prompt_embeds = encode_prompts(self.tokenizer, self._needed("text_encoder"), prompts)
        return prompt_embeds.to(self._execution_device).repeat_interleave(images, dim=0)

    def _needed(self, name: str) -> Any:
        """A component that the folder may not hold.

        Raises:
            ValueError: it is missing.
        """
        component = getattr(self, name)
        if component is None:
            origin = self.config[f"{name}_name"] or "the model's author"
            raise ValueError(f"the pipeline has no {name}: give from_pretrained({name}=...) that of {origin}")
        return component
