# The types that diffusers and transformers declare do not describe what they return.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportPrivateImportUsage=false
"""What pipeline and blocks for diffusers share: prompts to hidden states, noise to latents, latents to images."""

import html
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.utils import is_ftfy_available
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

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


def checked_prompts(prompt: Any) -> list[str]:
    """One prompt or several, as a list.

    Raises:
        ValueError: there is none, or one is empty or no text.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt) if isinstance(prompt, Sequence) else []
    if not prompts or not all(isinstance(each, str) and each.strip() for each in prompts):
        raise ValueError(
            f"prompt is {prompt!r:.60}: give a caption or several, or guidance_scale=0 for the null caption"
        )
    return prompts


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
        ValueError: there are not as many generators as images, or latents or captions have another shape.
    """
    config = transformer.config
    if captions.ndim != 3 or captions.shape[2] != config.caption_channels or not len(captions):
        raise ValueError(
            f"prompt_embeds have shape {tuple(captions.shape)}: (images, tokens, {config.caption_channels}) is needed"
        )
    shape = (len(captions), config.in_channels, config.latent_size, config.latent_size)

    def noise() -> Tensor:
        return randn_tensor(shape, generator, captions.device, torch.float32)

    if isinstance(generator, list) and len(generator) != len(captions):
        raise ValueError(f"generators: {len(generator)} for {len(captions)} images; give one, or one for each image")
    if latents is not None and tuple(latents.shape) != shape:
        raise ValueError(f"latents have shape {tuple(latents.shape)}: {shape} is needed")
    x = noise() if latents is None else latents.to(captions.device, torch.float32)
    x = x * scheduler.init_noise_sigma.to(x.dtype)
    for index, sigma in enumerate(progress(scheduler.timesteps)):
        added = noise() if scheduler.adds_noise(index) else None
        x = scheduler.step(denoiser(transformer, scheduler, captions, guidance), index, x, added)
        x, captions = after_step(index, sigma, x, captions)
    return x
