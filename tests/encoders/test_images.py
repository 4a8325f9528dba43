"""VAEs in the hub's own layout give what diffusers gives."""

import pytest
import torch
from diffusers import AutoencoderKL

from lcm_distill.encoders.images import load_image_encoder

SDXL = {
    "act_fn": "silu",
    "block_out_channels": (16, 32, 64, 64),  # 128, 256, 512, 512 in the real one
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "force_upcast": True,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 16,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return AutoencoderKL(**SDXL).eval()


@pytest.mark.parametrize("subfolder", ["", "vae"])
def test_folders_load_and_give_the_same(vae, tmp_path, subfolder):
    vae.save_pretrained(tmp_path / subfolder)
    encoder = load_image_encoder(str(tmp_path))
    assert (encoder.scaling_factor, encoder.channels, encoder.downsampling) == (0.13025, 4, 8)
    images, noise = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randn(2, 4, 8, 8)
    with torch.inference_mode():
        posterior = vae.encode(images).latent_dist
        latents = (posterior.mean + posterior.std * noise) * 0.13025
        pictures = (vae.decode(latents / 0.13025).sample / 2 + 0.5).clamp(0, 1)
    encoded = encoder.encode(images, noise)
    assert (encoded - latents).norm() / latents.norm() < 1e-6
    assert (encoder.decode(latents) - pictures).norm() / pictures.norm() < 1e-6
    assert encoded.std() > 0.01  # scaled, and not all the same


def test_half_precision_weights_are_raised(vae, tmp_path):
    AutoencoderKL(**SDXL).half().save_pretrained(tmp_path)
    assert load_image_encoder(str(tmp_path)).vae.dtype == torch.float32
