# The types that diffusers declares do not describe its decorators.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false
# pyright: reportPrivateImportUsage=false, reportUnknownVariableType=false
"""MicroDiT (arXiv 2407.15811) as a diffusers model.

The network of a pipeline that was published by lcm-distill, and its only code: nothing else needs to be installed.
"""

from typing import Any, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lcm_distill.models.microdit import MicroDiT
from lcm_distill.models.precision import cast_matrices
from lcm_distill.models.variants import Variant


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
        super().__init__(
            Variant(**variant), latent_size, in_channels, caption_channels, pos_interp_scale, guidance_embedding
        )

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
