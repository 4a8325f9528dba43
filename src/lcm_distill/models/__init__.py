"""MicroDiT, the sizes it comes in, and its checkpoints."""

from lcm_distill.errors import UserError
from lcm_distill.models.checkpoint import load_checkpoint, read_tensors
from lcm_distill.models.microdit import MicroDiT
from lcm_distill.models.variants import VARIANTS, Variant

__all__ = ["VARIANTS", "MicroDiT", "Variant", "build", "load_checkpoint", "read_tensors"]


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
