"""MicroDiT networks by the names of their variants."""

import torch

from lcm_distill.core.errors import UserError
from lcm_distill.models.microdit import MicroDiT
from lcm_distill.models.variants import VARIANTS


def build(
    name: str,
    latent_size: int,
    caption_channels: int,
    pos_interp_scale: float = 1.0,
    in_channels: int = 4,
    guidance_embedding: bool = False,
) -> MicroDiT:
    """A freshly initialised MicroDiT by the name of its variant.

    Raises:
        UserError: no variant has that name.
    """
    if name not in VARIANTS:
        raise UserError(f"unknown network {name!r}: choose one of {', '.join(VARIANTS)}")
    return MicroDiT(VARIANTS[name], latent_size, in_channels, caption_channels, pos_interp_scale, guidance_embedding)


def build_empty(*arguments: object, **named: object) -> MicroDiT:
    """The same without weights, which are on the meta device: to be filled from a checkpoint, or counted.

    Positions, which are computed, are there.
    """
    with torch.device("meta"):
        return build(*arguments, **named)  # pyright: ignore[reportArgumentType]
