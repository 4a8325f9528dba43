"""What `TextToImage.generate` is asked for: its checks, and where the noise comes from."""

import secrets
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lcm_distill.config.ranges import MOST_GUIDANCE, MOST_STEPS
from lcm_distill.core.device import to_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.numbers import is_number, is_whole
from lcm_distill.core.randomness import normal, require_seed
from lcm_distill.core.words import counted
from lcm_distill.diffusion.samplers import Noise

Generators = torch.Generator | Sequence[torch.Generator]
"""One for a whole batch, or one for each image."""


NAMES = ("num_inference_steps", "guidance_scale", "seed")
"""Of the settings of `TextToImage.generate` that are numbers."""


def check_settings(
    steps: int | None, guidance: float | None, seed: int | None, names: tuple[str, str, str] = NAMES
) -> None:
    """Refuse settings of `TextToImage.generate` that no model takes.

    Args:
        names: what whoever gave the settings calls them, for the message.

    Raises:
        UserError: one is out of range.
    """
    if steps is not None and not (is_whole(steps) and 1 <= steps <= MOST_STEPS):
        raise UserError(
            f"{names[0]} is {steps!s:.60}: it must be a whole number, 1 or more, and {MOST_STEPS:,} at most"
        )
    if guidance is not None and not (is_number(guidance) and 0 <= guidance <= MOST_GUIDANCE):
        raise UserError(f"{names[1]} is {guidance!s:.60}: it must be 0 or more, and {MOST_GUIDANCE:,} at most")
    if seed is not None:
        require_seed(names[2], seed)


def check_prompts(prompts: Sequence[str], ids: Sequence[int]) -> None:
    """Refuse no prompts, empty ones, and image ids that do not fit them.

    Raises:
        UserError: they do not.
    """
    if not prompts:
        raise UserError("there is no prompt: give one caption or more")
    if empty := [place for place, prompt in enumerate(prompts, 1) if not prompt.strip()]:
        raise UserError(f"prompt {empty[0]} is empty: give words, or guidance_scale=0 for the null caption")
    if len(ids) != len(prompts):
        raise UserError(
            f"there are {counted(len(prompts), 'prompt')} and {counted(len(ids), 'image_id')}: give one for each"
        )
    if wrong := [number for number in ids if not is_whole(number) or not 0 <= number < 2**64]:
        raise UserError(f"image_ids has {wrong[0]}: they must be whole numbers, 0 or more and below 2**64")


def noise_source(
    shape: tuple[int, ...],
    ids: Sequence[int],
    device: torch.device,
    seed: int | None,
    latents: Tensor | None,
    generator: Generators | None,
) -> Noise:
    """The noise of a batch's steps, (B, C, H, W), float32, on a device.

    Args:
        shape: of one image's latents. ids: of the batch's images.
        seed: with the ids determines the noise; None takes a random one.
        latents: noise of step 0 instead, standard normal (B, C, H, W).
        generator: draws the noise of all other steps, one after the other, instead of the seed.

    Raises:
        UserError: seed and generator are both given, there is not one generator for each image, or latents have
            another shape or are not finite.
    """
    if generator is not None and seed is not None:
        raise UserError("seed and generator are both given: give one of them")
    draw = _from_seed(shape, ids, seed) if generator is None else _from_generators(shape, len(ids), generator)
    if latents is None:
        return lambda step: to_device(draw(step), device)
    wanted = (len(ids), *shape)
    if tuple(latents.shape) != wanted:
        raise UserError(f"latents have shape {tuple(latents.shape)}: {wanted} is needed")
    if not bool(latents.isfinite().all()):
        raise UserError("latents hold values that are not finite: give standard normal noise")
    first = latents.to(device, torch.float32)
    return lambda step: first if step == 0 else to_device(draw(step), device)


def _from_seed(shape: tuple[int, ...], ids: Sequence[int], seed: int | None) -> Callable[[int], Tensor]:
    chosen = secrets.randbits(62) if seed is None else seed
    return lambda step: normal(chosen, "generate", step, ids, shape)


def _from_generators(shape: tuple[int, ...], count: int, generator: Generators) -> Callable[[int], Tensor]:
    if isinstance(generator, torch.Generator):
        return lambda step: torch.randn((count, *shape), generator=generator, device=generator.device)
    if len(generator) != count:
        numbers = f"{counted(count, 'prompt')} and {counted(len(generator), 'generator')}"
        raise UserError(f"there are {numbers}: give one, or one for each")
    return lambda step: torch.stack([torch.randn(shape, generator=each, device=each.device) for each in generator])
