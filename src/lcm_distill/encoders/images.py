# The types that diffusers declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false
"""The variational autoencoder between images and latents, with the scaling of its latents."""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from lcm_distill.config import Dtype, Weights
from lcm_distill.core.device import to_device
from lcm_distill.core.errors import UserError
from lcm_distill.core.numbers import require_number
from lcm_distill.encoders.vae import load_vae, random_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


LEAST_SCALE = 1e-6
LARGEST_SCALE = 1e6
"""Ends of the range of numbers that scale and shift latents; those in use are between 0.01 and 100."""


class ImageEncoder:
    """A frozen VAE; `encode` returns scaled latents and `decode` takes them.

    Scaled latents are (x - shift) * scaling_factor / std of the VAE's own latents x. Shift and std are 0 and 1 unless
    its configuration has a `shift_factor` (a number) or `latents_mean` and `latents_std` (a number a channel), as
    diffusers' pipelines apply them.

    Attributes:
        scaling_factor: multiplies the VAE's own latents (0.13025 for SDXL).
        shift: subtracted before, one number or one a channel; empty for none.
        std: divides them afterwards, one number a channel; empty for none.
        channels: of the latents.
        downsampling: ratio of image to latent size, along each side.
    """

    def __init__(self, vae: "AutoencoderKL") -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.scaling_factor = scaling_of(vae.config)
        self.shift, self.std = normalisation_of(vae.config)
        self.channels = int(vae.config.latent_channels)
        self.downsampling = 2 ** (len(vae.config.block_out_channels) - 1)

    @property
    def normalisation(self) -> dict[str, list[float]]:
        """`shift` and `std` under these names, as far as the VAE has them; a cache records them."""
        return {name: values for name, values in (("shift", self.shift), ("std", self.std)) if values}

    def to(self, device: str | torch.device) -> "ImageEncoder":
        """Move the weights, in place; on CUDA the VAE's blocks are replaced by `to_channels_last`. Returns self."""
        self.vae.to(device)
        if self.vae.device.type == "cuda":
            from lcm_distill.encoders.channels_last import to_channels_last  # diffusers is slow to import

            to_channels_last(self.vae)
        return self

    @torch.inference_mode()
    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """One scaled sample from the posterior of each image.

        Args:
            images: (B, 3, H, W), float, in [-1, 1].
            noise: (B, C, h, w), standard normal, on the CPU; it determines the sample.

        Returns:
            (B, C, h, w), float32.
        """
        posterior = self.vae.encode(images.to(self.vae.device, self.vae.dtype)).latent_dist
        mean, std = posterior.mean.float(), torch.exp(0.5 * posterior.logvar.float())
        latents = mean + std * to_device(noise, mean.device)
        if self.shift:
            latents = latents - _by_channel(self.shift, latents)
        latents = latents * self.scaling_factor
        return latents / _by_channel(self.std, latents) if self.std else latents

    def encode_pixels(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """`encode` of uint8 images (B, H, W, 3) on the CPU, which are copied to the device as uint8."""
        images = to_device(pixels, self.vae.device).permute(0, 3, 1, 2) / 127.5 - 1
        return self.encode(images, noise)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, C, h, w) to images (B, 3, H, W), float32 in [0, 1]."""
        latents = unscaled(latents, self.scaling_factor, self.shift, self.std)
        return (self.vae.decode(latents.to(self.vae.device, self.vae.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)


def unscaled(latents: Tensor, scaling_factor: float, shift: list[float], std: list[float]) -> Tensor:
    """The VAE's own latents (B, C, h, w) of scaled ones; the other arguments are those of `ImageEncoder`."""
    if std:
        latents = latents * _by_channel(std, latents)
    latents = latents / scaling_factor
    return latents + _by_channel(shift, latents) if shift else latents


def normalisation_of(config: Any) -> tuple[list[float], list[float]]:
    """Shift and std of a VAE's latents by its configuration, both empty where it has none.

    Raises:
        UserError: it has a mean or a std of the channels without the other, or a shift beside them, or one of them is
            no number.
    """
    shift, mean, std = (getattr(config, name, None) for name in ("shift_factor", "latents_mean", "latents_std"))
    if (mean is None) != (std is None) or (mean is not None and shift):
        raise UserError(
            f"encoders.vae: its config.json has shift_factor = {shift}, latents_mean = {mean} and latents_std = {std}: "
            "mean and std belong together, without a shift_factor"
        )
    if mean is not None and std is not None:
        channels = getattr(config, "latent_channels", None)
        return _numbers("latents_mean", mean, channels), _numbers("latents_std", std, channels, LEAST_SCALE)
    return (_numbers("shift_factor", [shift], 1) if shift else []), []


def scaling_of(config: Any) -> float:
    """The factor that a VAE's configuration has for its latents.

    Raises:
        UserError: it is no number above 0.
    """
    return _numbers("scaling_factor", [config.scaling_factor], 1, LEAST_SCALE)[0]


def _numbers(name: str, values: Any, count: int | None, least: float = -LARGEST_SCALE) -> list[float]:
    numbers = list(cast(Any, values)) if isinstance(values, list | tuple) else []
    if len(numbers) != (len(numbers) or 1 if count is None else count):
        raise UserError(
            f"encoders.vae: its config.json has {name} = {values!r:.60}: it must be {count or 'a list of'} numbers"
        )
    try:
        for value in numbers:
            require_number(name, value, least, LARGEST_SCALE)
    except ValueError as error:
        raise UserError(f"encoders.vae: in its config.json {error}") from error
    return [float(value) for value in numbers]


def _by_channel(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


def load_image_encoder(
    name: str, weights: Weights = "pretrained", dtype: Dtype = "float32", tiling: bool = False
) -> ImageEncoder:
    """The VAE `name`, on the CPU; the arguments are keys of the configuration's `[encoders]`.

    Args:
        tiling: encode and decode in overlapping tiles, with less memory.

    Raises:
        UserError: the weights are not here and cannot be fetched, or the VAE cannot compute in `dtype`.
    """
    vae = random_vae(name) if weights == "random" else load_vae(name)
    if dtype == "float16" and vae.config.force_upcast:
        raise UserError(
            f"encoders.dtype = 'float16': VAE {name!r} overflows in it (its configuration says force_upcast): set "
            "encoders.dtype=bfloat16, or encoders.vae=madebyollin/sdxl-vae-fp16-fix"
        )
    if tiling:
        vae.enable_tiling()
    return ImageEncoder(vae.type(getattr(torch, dtype)))
