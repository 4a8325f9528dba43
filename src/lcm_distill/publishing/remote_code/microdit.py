# The types that diffusers declares do not describe its decorators.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false
# pyright: reportPrivateImportUsage=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""MicroDiT (arXiv 2407.15811) as a diffusers model.

The network of a pipeline that was published by lcm-distill, and its only code: nothing else needs to be installed.
"""

from dataclasses import asdict
from typing import Any, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lcm_distill.core.numbers import require_number
from lcm_distill.models.microdit import MicroDiT
from lcm_distill.models.precision import cast_matrices
from lcm_distill.models.variants import VARIANTS, Variant

MOST_SIZE = 65_536
"""The largest size of a network that is built; above those in use, and its memory can be had."""


def checked_variant(described: Any) -> Variant:
    """The variant that a configuration file describes.

    Raises:
        ValueError: it is none.
    """
    try:
        variant = Variant(**described)
    except TypeError as error:
        raise ValueError(f"variant in the network's config.json is no variant of MicroDiT: {error}") from error
    defaults: dict[str, Any] = asdict(VARIANTS["MicroDiT_XL_2"])
    for name, default in defaults.items():
        value, called = getattr(variant, name), f"variant.{name} in the network's config.json"
        count = len(default) if isinstance(default, tuple) else 0
        if count and (not isinstance(value, list | tuple) or len(value) != count):
            raise ValueError(f"{called} is {value!r:.60}: it must be {count} numbers")
        for number in value if count else [value]:
            require_number(called, number, 0 if count else 1, MOST_SIZE, isinstance(default, int))
    return variant


class MicroDiTModel(MicroDiT, ModelMixin, ConfigMixin):
    """MicroDiT with diffusers' loading and saving.

    Args:
        variant: fields of `Variant`.
        latent_size: height and width of the latents. in_channels: their channels.
        caption_channels: width of a caption token's embedding.
        pos_interp_scale: divides token positions.
        guidance_embedding: whether the network takes the guidance scale as an input, as students do.
    """

    @register_to_config
    def __init__(
        self,
        variant: dict[str, Any],
        latent_size: int,
        in_channels: int,
        caption_channels: int,
        pos_interp_scale: float = 1.0,
        guidance_embedding: bool = False,
    ) -> None:
        sizes = {"latent_size": latent_size, "in_channels": in_channels, "caption_channels": caption_channels}
        for name, size in sizes.items():
            require_number(f"{name} in the network's config.json", size, 1, MOST_SIZE, whole=True)
        require_number("pos_interp_scale in the network's config.json", pos_interp_scale, 1e-6, MOST_SIZE)
        super().__init__(checked_variant(variant), **sizes, pos_interp_scale=pos_interp_scale,
                         guidance_embedding=guidance_embedding)  # fmt: skip

    def forward(
        self,
        latents: Tensor,
        c_noise: Tensor,
        captions: Tensor,
        guidance: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """See `MicroDiT.forward`; latents may have any dtype."""
        return super().forward(latents.to(self.x_embedder.proj.weight.dtype), c_noise, captions, guidance, kept)

    @classmethod
    def from_pretrained(
        cls, *where: Any, torch_dtype: torch.dtype | None = None, dtype: torch.dtype | None = None, **options: Any
    ) -> Self:
        """See `ModelMixin.from_pretrained`.

        Args:
            torch_dtype, dtype: of the products of matrices. The residual stream, norms and embeddings of noise level
                and guidance stay float32, as they were when the network was trained.
        """
        model = super().from_pretrained(*where, **options).float()
        cast_matrices(model, dtype or torch_dtype or torch.float32)
        return model
