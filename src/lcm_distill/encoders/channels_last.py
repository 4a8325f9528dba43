# The types that diffusers declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportOptionalCall=false, reportOptionalSubscript=false
# pyright: reportOperatorIssue=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false
"""The VAE's blocks for GPUs: the same computation on channels-last images, with fewer passes over memory.

Between convolutions, diffusers' blocks read and write each activation some twenty times: layouts are converted for
cuDNN and back, and bias, activation, residual and a division by one each take a pass. `lcm_distill.kernels.group_norm`
fuses these passes; convolutions leave their bias to the kernel that follows.
"""

from typing import TYPE_CHECKING, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

from lcm_distill.kernels.group_norm import group_norm, sum_with_bias

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FLASH_WIDTH = 256
"""Largest head width that flash attention supports."""


def to_channels_last(vae: "AutoencoderKL") -> "AutoencoderKL":
    """Replace a VAE's blocks by channels-last ones with fused kernels, in place, for inference; returns the VAE.

    Where the activation is not SiLU, only the memory layout changes. A second call changes nothing.
    """
    vae.to(memory_format=torch.channels_last)
    if vae.config.act_fn not in ("silu", "swish"):
        return vae
    for coder in (vae.encoder, vae.decoder):
        _replace_blocks(coder)
        if isinstance(coder.conv_norm_out, nn.GroupNorm):
            coder.conv_norm_out, coder.conv_act = NormedSilu(coder.conv_norm_out), nn.Identity()
    return vae


def _replace_blocks(parent: nn.Module) -> None:
    for name, module in parent.named_children():
        if type(module) in REPLACED:
            setattr(parent, name, REPLACED[type(module)](module))
        elif isinstance(module, Attention) and module.heads == 1:
            module.set_processor(SingleHead())
        else:
            _replace_blocks(module)


def normed(x: Tensor, norm: nn.GroupNorm, silu: bool = True, input_bias: Tensor | None = None) -> Tensor:
    """The group norm `norm` of `x` + `input_bias`, followed by SiLU if `silu`; (B, C, H, W) to the same shape."""
    return group_norm(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu, input_bias)


def without_bias(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of `x` (B, C, H, W) without its bias."""
    return F.conv2d(x, convolution.weight, None, convolution.stride, convolution.padding)


class NormedSilu(nn.Module):
    """Group norm followed by SiLU, (B, C, H, W) to the same shape."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return normed(x, self.norm)


class ResidualBlock(nn.Module):
    """Computes a `ResnetBlock2D` without time embedding and resampling."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W); the VAE has no time embedding."""
        hidden = without_bias(self.conv1, normed(x, self.norm1))
        hidden = without_bias(self.conv2, normed(hidden, self.norm2, input_bias=self.conv1.bias))
        if self.conv_shortcut is None:
            return sum_with_bias(hidden, x, self.conv2.bias)
        shortcut = without_bias(self.conv_shortcut, x)
        return sum_with_bias(hidden, shortcut, self.conv2.bias + self.conv_shortcut.bias)


class Downsample(nn.Module):
    """Computes a `Downsample2D` that pads on the right and bottom: a convolution of stride two and width three."""

    def __init__(self, block: Downsample2D) -> None:
        super().__init__()
        self.conv = cast(nn.Conv2d, block.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        # Padding by two on every side shifts outputs by one, so the first row and column are dropped: no padded copy.
        x = F.conv2d(x, self.conv.weight, None, stride=2, padding=2)[:, :, 1:, 1:]
        return x + self.conv.bias[:, None, None]


class Upsample(nn.Module):
    """Computes an `Upsample2D`: nearest-neighbour upsampling by two, then a convolution."""

    def __init__(self, block: Upsample2D) -> None:
        super().__init__()
        self.conv = cast(nn.Conv2d, block.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
        batch, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(batch, height, 2, width, 2, channels)
        return self.conv(pixels.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2))


class SingleHead:
    """A processor of diffusers' `Attention` with one head over the pixels of an image."""

    def __call__(
        self, attention: Attention, x: Tensor, encoder_hidden_states: None, attention_mask: None, temb: None = None
    ) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = normed(x, attention.group_norm, silu=False).permute(0, 2, 3, 1).reshape(batch, -1, channels)
        query, key, value = attention.to_q(tokens), attention.to_k(tokens), attention.to_v(tokens)
        attended = attention.to_out[0](attend(query, key, value))
        return attended.reshape(batch, height, width, channels).permute(0, 3, 1, 2) + x


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one head, (B, L, C) each; scores and softmax in float32.

    For heads too wide for flash attention, PyTorch's kernel is several times slower than plain matrix products, which
    are computed image by image to bound their memory.
    """
    if query.shape[-1] <= FLASH_WIDTH:
        return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
    query = query * query.shape[-1] ** -0.5
    return torch.stack([_attend_one(*image) for image in zip(query, key, value, strict=True)])


def _attend_one(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    # CPUs have no low-precision product that accumulates in float32.
    scores = torch.mm(query, key.T, out_dtype=torch.float32) if query.is_cuda else query.float() @ key.float().T
    return scores.softmax(dim=-1).to(value.dtype) @ value


REPLACED = {ResnetBlock2D: ResidualBlock, Downsample2D: Downsample, Upsample2D: Upsample}
