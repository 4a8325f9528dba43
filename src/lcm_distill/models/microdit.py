"""MicroDiT: the text-to-image diffusion transformer of MicroDiffusion (arXiv 2407.15811).

Modules have the names that the published checkpoints use.
"""

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from lcm_distill.kernels.residual import add, add_and_normalise, normalise
from lcm_distill.models.experts import ExpertChoice
from lcm_distill.models.layers import (
    CaptionEmbedder,
    CrossAttention,
    FeedForward,
    Mlp,
    Modulation,
    NormLinear,
    PatchEmbedder,
    ScalarEmbedder,
    SelfAttention,
    layer_norm,
    round_up,
)
from lcm_distill.models.position_embedding import grid_positions
from lcm_distill.models.precision import Linear
from lcm_distill.models.variants import Variant


class MicroDiT(nn.Module):
    """Diffusion transformer with a patch mixer, expert-choice layers and an optional guidance embedder.

    Args:
        variant: widths, depths and kinds of layers.
        latent_size: height and width of the latents, in latent pixels.
        in_channels: channels of the latents, and of the output.
        caption_channels: width of the caption embedding.
        pos_interp_scale: divides token positions; 2.0 when a network trained at 256 px runs at 512 px.
        guidance_embedding: whether the network takes the guidance scale as an input, as students do.
    """

    pos_embed: Tensor
    mask_token: Tensor

    def __init__(
        self,
        variant: Variant,
        latent_size: int,
        in_channels: int,
        caption_channels: int,
        pos_interp_scale: float,
        guidance_embedding: bool,
    ) -> None:
        super().__init__()
        self.variant, self.latent_size, self.in_channels = variant, latent_size, in_channels
        self.patch_size = variant.patch_size
        dim = variant.dim
        self.register_buffer("pos_embed", grid_positions(dim, latent_size // self.patch_size, pos_interp_scale))
        self.register_buffer("mask_token", torch.zeros(1, 1, self.patch_size**2 * in_channels))
        self.x_embedder = PatchEmbedder(in_channels, dim, self.patch_size)
        self.t_embedder = ScalarEmbedder(dim)
        self.cfg_embedder = ScalarEmbedder(dim) if guidance_embedding else None
        self.y_embedder = CaptionEmbedder(caption_channels, dim)
        self.y_emb_preprocess = CaptionBlock(variant)
        self.pooled_y_emb_process = Mlp(dim, dim)
        self.patch_mixer = nn.ModuleList(DiTBlock(variant, layer, mixer=True) for layer in range(variant.mixer_depth))
        self.blocks = nn.ModuleList(DiTBlock(variant, layer, mixer=False) for layer in range(variant.depth))
        if variant.mixer_dim != dim:
            self.patch_mixer_map_xin = NormLinear(dim, variant.mixer_dim)
            self.patch_mixer_map_xout = NormLinear(variant.mixer_dim, dim)
            self.patch_mixer_map_y = NormLinear(dim, variant.mixer_dim)
        else:
            self.patch_mixer_map_xin = nn.Identity()
            self.patch_mixer_map_xout = nn.Identity()
            self.patch_mixer_map_y = nn.Identity()
        self.final_layer = FinalLayer(dim, self.patch_size**2 * in_channels)
        self._initialise()

    def forward(
        self,
        latents: Tensor,
        c_noise: Tensor,
        captions: Tensor,
        guidance: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """The raw network F of EDM (arXiv 2206.00364, table 1); preconditioning is the caller's.

        Args:
            latents: (B, C, H, W), already scaled by c_in.
            c_noise: (B,) or (1,), ln(sigma) / 4.
            captions: (N, L, caption_channels), or (N, 1, L, caption_channels) as published caches have it, of the
                first N samples; any that follow have the null caption.
            guidance: (B,) or (1,) guidance scales, for a network with a guidance embedder; None adds nothing.
            kept: (B, K), int64, indices in row-major order of the patches to keep after the patch mixer (deferred
                masking, arXiv 2407.15811); None keeps all.

        Returns:
            (B, C, H, W); `mask_token`, which is zero, in the patches that are not kept.

        Raises:
            ValueError: guidance was given to a network without a guidance embedder.
        """
        tokens = self.x_embedder(latents) + self.pos_embed
        captions = captions.squeeze(1) if captions.dim() == 4 else captions
        conditional, null, pooled = self._embed_with_null(captions, len(latents))
        condition = self.t_embedder(c_noise.expand(len(latents))) + pooled
        if guidance is not None:
            condition = condition + self._embed_guidance(guidance.expand(len(latents)))
        tokens = self._mix_patches(tokens, conditional, condition, null)
        if kept is not None:
            tokens = tokens.gather(1, kept[:, :, None].expand(-1, -1, tokens.shape[2]))
        tokens = self.patch_mixer_map_xout(tokens).to(self.pos_embed.dtype)  # that of the residual stream
        tokens = self._apply_blocks(self.blocks, tokens, conditional, condition, null)
        patches = self.final_layer(tokens, condition)
        return self._unpatchify(patches if kept is None else self._scatter_patches(patches, kept))

    def _mix_patches(self, tokens: Tensor, captions: Tensor, condition: Tensor, null: Tensor | None) -> Tensor:
        """The patch mixer: (B, T, dim) -> (B, T, mixer_dim)."""
        tokens = self.patch_mixer_map_xin(tokens).to(self.pos_embed.dtype)
        captions = self.patch_mixer_map_y(captions)
        null = None if null is None else self.patch_mixer_map_y(null)
        return self._apply_blocks(self.patch_mixer, tokens, captions, condition, null)

    @staticmethod
    def _apply_blocks(
        blocks: nn.ModuleList, tokens: Tensor, captions: Tensor, condition: Tensor, null: Tensor | None
    ) -> Tensor:
        """Blocks one after the other; each leaves its last branch to the next to add. See `DiTBlock.forward`."""
        branch, gate = None, None
        for block in blocks:
            tokens, branch, gate = block(tokens, branch, gate, captions, condition, null)
        return tokens if branch is None else add(tokens, branch, gate)

    def _embed_with_null(self, captions: Tensor, batch: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Caption tokens (N, L, dim), one null token (1, 1, dim) if N < batch, and pooled captions (batch, dim).

        All tokens of the null caption are zero, so they are equal and stay equal through the layers. Attention over
        them returns the value of any one of them, whatever the query: one token stands for all of them.
        """
        conditional, pooled = self._embed_captions(captions)
        unconditional_count = batch - len(captions)
        if not unconditional_count:
            return conditional, None, pooled
        null, null_pooled = self._embed_captions(captions.new_zeros(1, 1, captions.shape[-1]))
        return conditional, null, torch.cat([pooled, null_pooled.expand(unconditional_count, -1)])

    def _embed_captions(self, captions: Tensor) -> tuple[Tensor, Tensor]:
        """Caption tokens (B, L, dim) for cross-attention, and pooled captions (B, dim) for the condition."""
        tokens = self.y_emb_preprocess(self.y_embedder(captions))
        return tokens, self.pooled_y_emb_process(tokens.mean(dim=1, keepdim=True)).squeeze(1)

    def _embed_guidance(self, guidance: Tensor) -> Tensor:
        if self.cfg_embedder is None:
            raise ValueError("this MicroDiT has no guidance embedder: build it with guidance_embedding=True")
        return self.cfg_embedder(guidance)

    def _scatter_patches(self, patches: Tensor, kept: Tensor) -> Tensor:
        """The kept patches (B, K, values) in their places among all patches (B, T, values)."""
        masked = self.mask_token.to(patches.dtype).expand(len(patches), self.pos_embed.shape[1], -1)
        return masked.scatter(1, kept[:, :, None].expand_as(patches), patches)

    def _unpatchify(self, tokens: Tensor) -> Tensor:
        """Patches (B, T, patch_size^2 C) to (B, C, H, W)."""
        side, patch = self.latent_size // self.patch_size, self.patch_size
        grid = tokens.view(-1, side, side, patch, patch, self.in_channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.in_channels, side * patch, side * patch)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if (bias := cast(Tensor | None, module.bias)) is not None:
                    nn.init.zeros_(bias)
        parts = (
            self.x_embedder, self.t_embedder, self.y_embedder, self.pooled_y_emb_process, *self.patch_mixer,
            *self.blocks, self.y_emb_preprocess, self.final_layer,
        )  # fmt: skip
        for part in cast(tuple[Initialised, ...], parts):
            part.initialise()
        if self.cfg_embedder is not None:
            # With an output of zero, a student that starts from a teacher equals it at every guidance scale.
            self.cfg_embedder.initialise_to_zero()


class Initialised(Protocol):
    """A module that initialises its own weights."""

    def initialise(self) -> None:
        """Initialise the weights, in place."""
        ...


class DiTBlock(nn.Module):
    """Self-attention, cross-attention to the caption, and a dense or expert feed-forward, with adaLN."""

    def __init__(self, variant: Variant, layer: int, mixer: bool) -> None:
        super().__init__()
        dim = variant.mixer_dim if mixer else variant.dim
        qkv_ratio = 1.0 if mixer else variant.qkv_ratio(layer)
        hidden = int(dim * (variant.mixer_mlp_ratio if mixer else variant.mlp_ratio(layer)))
        pair = 2 * variant.head_dim
        width = dim if qkv_ratio == 1 else round_up(int(dim * qkv_ratio), pair)
        self.norm1, self.norm2, self.norm3 = layer_norm(dim), layer_norm(dim), layer_norm(dim)
        self.attn = SelfAttention(dim, width // variant.head_dim, width)
        self.cross_attn = CrossAttention(dim, dim // variant.head_dim)
        self.mlp = (
            ExpertChoice(dim, hidden, variant.multiple_of, variant.experts, variant.expert_capacity)
            if variant.has_experts(layer, mixer)
            else FeedForward(dim, hidden, variant.multiple_of)
        )
        self.adaLN_modulation = Modulation(variant.dim, 6 * dim)
        self._out_std = 0.02 / (2 * (variant.depth if mixer else layer + 1)) ** 0.5

    def forward(
        self,
        x: Tensor,
        branch: Tensor | None,
        gate: Tensor | None,
        captions: Tensor,
        condition: Tensor,
        null: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block. Its last branch is not added to the tokens: the fused kernel of the next block's norm adds it.

        Args:
            x: (B, T, dim), the residual stream.
            branch, gate: (B, T, dim) and (B, dim), the previous block's last branch and its gate; None in the first.
            captions: (N, L, dim), caption tokens of the first N samples.
            condition: (B, variant.dim).
            null: (1, 1, dim), the token that the other samples attend to; None if there are none.

        Returns:
            The residual stream, and this block's last branch and gate, for the next block.
        """
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(condition).chunk(
            6, dim=1
        )
        dtype = gate_attn.dtype  # the dtype of products
        x, normed = add_and_normalise(x, branch, gate, self.norm1.weight, shift_attn, scale_attn, dtype=dtype)
        x, normed = add_and_normalise(x, self.attn(normed), gate_attn, self.norm2.weight, dtype=dtype)
        with_caption, rest = normed, None
        if null is not None:
            with_caption, rest = normed[: len(captions)], self.cross_attn.attend_to_one(null)
        attended = self.cross_attn(with_caption, captions)
        x, normed = add_and_normalise(x, attended, None, self.norm3.weight, shift_mlp, scale_mlp, rest, dtype)
        return x, self.mlp(normed), gate_mlp

    def initialise(self) -> None:
        """Initialise the weights, in place; output projections start smaller in deeper blocks."""
        for part in (self.attn, self.cross_attn, self.mlp):
            part.initialise(self._out_std)
        self.adaLN_modulation.initialise()


class CaptionBlock(nn.Module):
    """A transformer block over the caption tokens (B, L, dim), before cross-attention."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        dim = variant.dim
        self.norm1, self.norm2 = layer_norm(dim), layer_norm(dim)
        self.attn = SelfAttention(dim, dim // variant.head_dim, dim)
        self.mlp = FeedForward(dim, 4 * dim, variant.multiple_of)

    def forward(self, captions: Tensor) -> Tensor:
        """(B, L, dim) -> (B, L, dim)."""
        captions, normed = add_and_normalise(captions, None, None, self.norm1.weight)
        captions, normed = add_and_normalise(captions, self.attn(normed), None, self.norm2.weight)
        return add(captions, self.mlp(normed), None)

    def initialise(self) -> None:
        """Initialise the weights, in place."""
        self.attn.initialise(0.02)
        self.mlp.initialise(0.02)
        nn.init.zeros_(self.attn.proj.weight)
        nn.init.zeros_(self.mlp.w3.weight)


class FinalLayer(nn.Module):
    """adaLN and a linear map from tokens (B, T, dim) to patches (B, T, patch_values)."""

    float32 = True

    def __init__(self, dim: int, patch_values: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(dim)
        self.linear = Linear(dim, patch_values)
        self.adaLN_modulation = Modulation(dim, 2 * dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, T, dim) and condition (B, dim) -> (B, T, outputs)."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        return self.linear(normalise(x, self.norm_final.weight, shift, scale, shift.dtype))

    def initialise(self) -> None:
        """Initialise the weights, in place."""
        self.adaLN_modulation.initialise()
        nn.init.zeros_(self.linear.weight)
