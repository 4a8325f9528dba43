# The types that diffusers and transformers declare do not describe what they return.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportPrivateImportUsage=false, reportAttributeAccessIssue=false
# pyright: reportArgumentType=false, reportCallIssue=false
"""Text to image with MicroDiT, a teacher or a few-step student, in diffusers."""

import html
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, ImagePipelineOutput, ModelMixin, SchedulerMixin
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import is_ftfy_available
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from lcm_distill.core.numbers import require_number
from lcm_distill.diffusion.guidance import denoiser_at
from lcm_distill.diffusion.preconditioning import Denoiser, consistency_function
from lcm_distill.encoders.images import normalisation_of, scaling_of, unscaled


def encode_prompts(tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> Tensor:
    """The last hidden state of every token, (B, L, C); a prompt is padded with token 0, as in training."""
    length = text_encoder.config.max_position_embeddings
    tokens = torch.zeros(len(prompts), length, dtype=torch.long)
    cleaned = [clean(prompt) for prompt in prompts]
    for row, own in zip(tokens, tokenizer(cleaned, truncation=True, max_length=length).input_ids, strict=True):
        row[: len(own)] = torch.tensor(own)
    return text_encoder(tokens.to(text_encoder.device)).last_hidden_state


def clean(prompt: str) -> str:
    """A prompt without HTML entities and wrongly decoded characters, as CLIP's own tokeniser has it."""
    if is_ftfy_available():
        import ftfy

        prompt = ftfy.fix_text(prompt)
    return html.unescape(html.unescape(prompt)).strip()


OUTPUT_TYPES = ("pil", "np", "pt")
"""Forms of images that a pipeline and its blocks give."""


def checked_guidance(config: Any, given: float | None) -> float:
    """The guidance scale that a caller gives, or else the folder; a warning where a student was not trained on it.

    Args:
        config: with `guidance_scale`, `min_guidance_scale` and `max_guidance_scale`; the last two may be None.

    Raises:
        ValueError: it is none.
    """
    scale: float = config.guidance_scale if given is None else given
    require_number("guidance_scale", scale, 0)
    low, high = config.min_guidance_scale, config.max_guidance_scale
    if low is None or high is None:
        return scale
    require_number("min_guidance_scale of the folder", low, 0)
    require_number("max_guidance_scale of the folder", high, low)
    if not low <= scale <= high:
        warnings.warn(
            f"guidance {scale:g} lies outside {low:g} to {high:g}, which this student was trained on", stacklevel=4
        )
    return scale


def require_among(name: str, given: Sequence[Any], allowed: Sequence[str]) -> None:
    """Check what a caller chooses.

    Raises:
        ValueError: something is not allowed; one line that lists what is.
    """
    if wrong := [each for each in given if each not in allowed]:
        raise ValueError(f"{name} is {wrong[0]!r:.60}: it must be {', '.join(allowed[:-1])} or {allowed[-1]}")


def denoiser(transformer: Any, scheduler: Any, captions: Tensor, guidance: float) -> Denoiser:
    """What a scheduler's steps call: a student's consistency function, or EDM's denoiser with guidance.

    Args:
        captions: (B, L, C). guidance: scale of all images.
    """
    settings = scheduler.config
    if settings.sampler == "heun":
        return denoiser_at(transformer, settings.sigma_data, captions, guidance)
    scales = torch.full((len(captions),), float(guidance), device=captions.device)
    return consistency_function(transformer, settings.sigma_data, settings.sigma_min, captions, scales)


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Scaled latents (B, C, h, w) to images (B, 3, H, W) in [-1, 1]."""
    latents = unscaled(latents, scaling_of(vae.config), *normalisation_of(vae.config))
    return vae.decode(latents.to(vae.device, vae.dtype)).sample.float()


AfterStep = Callable[[int, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(index of the step, sigma, latents, captions) -> latents and captions to go on with."""


def sample(
    transformer: Any,
    scheduler: Any,
    captions: Tensor,
    guidance: float,
    generator: torch.Generator | list[torch.Generator] | None = None,
    latents: Tensor | None = None,
    after_step: AfterStep = lambda _index, _sigma, latents, captions: (latents, captions),
    progress: Callable[[Any], Any] = iter,
) -> Tensor:
    """Latents of captions (B, L, C) by the steps of a scheduler whose timesteps are set, (B, C, h, w), float32.

    Args:
        generator: one, or one for each image; draws all noise but that of `latents`, standard normal (B, C, h, w).
        progress: wraps the timesteps.

    Raises:
        ValueError: there are not as many generators as images, or latents have another shape.
    """
    config = transformer.config
    shape = (len(captions), config.in_channels, config.latent_size, config.latent_size)

    def noise() -> Tensor:
        return randn_tensor(shape, generator, captions.device, torch.float32)

    if isinstance(generator, list) and len(generator) != len(captions):
        raise ValueError(f"{len(generator)} generators for {len(captions)} images: give one, or one for each image")
    if latents is not None and tuple(latents.shape) != shape:
        raise ValueError(f"latents have shape {tuple(latents.shape)}: {shape} is needed")
    x = noise() if latents is None else latents.to(captions.device, torch.float32)
    x = x * scheduler.init_noise_sigma.to(x.dtype)
    for index, sigma in enumerate(progress(scheduler.timesteps)):
        added = noise() if scheduler.adds_noise(index) else None
        x = scheduler.step(denoiser(transformer, scheduler, captions, guidance), index, x, added)
        x, captions = after_step(index, sigma, x, captions)
    return x


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
        captions = self._captions(prompt, prompt_embeds).repeat_interleave(num_images_per_prompt, dim=0)
        self.scheduler.set_timesteps(num_inference_steps, device=captions.device)
        images: Any = sample(
            self.transformer, self.scheduler, captions, guidance, generator, latents, after_step, self.progress_bar
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

    def _captions(self, prompt: str | Sequence[str] | None, prompt_embeds: Tensor | None) -> Tensor:
        device = self._execution_device
        if prompt_embeds is not None:
            return prompt_embeds.to(device)
        if not prompt:
            raise ValueError("there is no prompt: give one or more, or prompt_embeds")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        return encode_prompts(self.tokenizer, self._needed("text_encoder"), prompts).to(device)

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
