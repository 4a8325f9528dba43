# The types that diffusers declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false
"""Between pictures and latents: a variational autoencoder with the scaling its latents are served in."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lcm_distill import assets
from lcm_distill.errors import UserError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class ImageEncoder:
    """A VAE and its scaling factor: latents leave `encode` scaled and enter `decode` scaled.

    Attributes:
        scaling_factor: what the VAE's own latents are multiplied by (0.13025 for SDXL).
        channels: channels of the latents.
        downsampling: picture pixels to a latent pixel, along each side.
    """

    def __init__(self, vae: "AutoencoderKL") -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.scaling_factor = float(vae.config.scaling_factor)
        self.channels = int(vae.config.latent_channels)
        self.downsampling = 2 ** (len(vae.config.block_out_channels) - 1)

    def to(self, device: str | torch.device) -> "ImageEncoder":
        """Move the weights; returns self."""
        self.vae.to(device)
        return self

    @torch.inference_mode()
    def encode(self, images: Tensor, noise: Tensor) -> Tensor:
        """One sample of the posterior of each picture, scaled.

        Args:
            images: (B, 3, H, W), float, in [-1, 1].
            noise: (B, C, h, w), standard normal; it decides the sample.

        Returns:
            (B, C, h, w), float32.
        """
        posterior = self.vae.encode(images.to(self.vae.device, self.vae.dtype)).latent_dist
        sample = posterior.mean.float() + posterior.std.float() * noise.to(posterior.mean.device)
        return sample * self.scaling_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to pictures (B, 3, H, W), float32 in [0, 1]."""
        latents = (latents / self.scaling_factor).to(self.vae.device, self.vae.dtype)
        return (self.vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)


def load_image_encoder(name: str) -> ImageEncoder:
    """The VAE called `name`: `shapes`, a local diffusers folder, or a repository on the hub.

    A diffusers pipeline keeps its VAE in the subfolder `vae`, which is looked into first.

    Raises:
        UserError: the weights are neither on this machine nor can they be fetched.
    """
    if name == "shapes":
        return _open(assets.VAE)
    subfolder = "vae" if not Path(name).is_dir() or (Path(name) / "vae").is_dir() else None
    try:
        return _open(name, subfolder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"VAE {name!r} cannot be loaded: fetch it on a machine with network with "
            f"`hf download {name} --include 'vae/*' --local-dir DIR` and set encoders.vae to DIR"
        ) from error


def _open(name: str | Path, subfolder: str | None = None) -> ImageEncoder:
    from diffusers import AutoencoderKL

    # The lean loading path needs `accelerate`, and weights that are stored in half precision are raised.
    return ImageEncoder(
        AutoencoderKL.from_pretrained(name, subfolder=subfolder, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    )
