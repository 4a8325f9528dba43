# The types that diffusers declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportPrivateImportUsage=false
"""A VAE for GPUs computes what diffusers' does."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from lcm_distill import assets
from lcm_distill.encoders.channels_last import FLASH_WIDTH, to_channels_last
from tests.tensors import perturb, random_images, relative

SDXL = AutoencoderKL.load_config(assets.SDXL_VAE_CONFIG)
NARROW = {"block_out_channels": (16, 32, 64, 64), "norm_num_groups": 16}
WIDE_HEAD = {
    "block_out_channels": (32, FLASH_WIDTH + 32),
    "layers_per_block": 1,
    "down_block_types": SDXL["down_block_types"][:2],
    "up_block_types": SDXL["up_block_types"][:2],
}


def build(**changes) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config({**SDXL, **changes}).eval().requires_grad_(False)
    perturb(vae)
    return vae


def coded(vae: AutoencoderKL, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of images, and images of latents that do not depend on the VAE."""
    latents = torch.randn(2, vae.config.latent_channels, 5, 7, generator=torch.Generator().manual_seed(1))
    images, latents = images.to(vae.dtype), latents.to(vae.dtype)
    with torch.inference_mode():
        return vae.encode(images).latent_dist.mean.float(), vae.decode(latents).sample.float()


@pytest.fixture
def images() -> torch.Tensor:
    return random_images((2, 3, 56, 72), seed=2)


@pytest.mark.parametrize(
    "changes", [NARROW, WIDE_HEAD, {**NARROW, "act_fn": "gelu"}], ids=["SDXL", "wide head", "GELU"]
)
def test_the_sums_are_diffusers(images, changes):
    vae = build(**changes)
    fast = to_channels_last(copy.deepcopy(vae))
    for ours, theirs in zip(coded(fast, images), coded(vae, images), strict=True):
        assert relative(ours, theirs) < 1e-5


def test_low_precision_loses_no_more_than_diffusers(images):
    vae = build(**NARROW)
    exact, low = coded(vae, images), coded(copy.deepcopy(vae).bfloat16(), images)
    fast = coded(to_channels_last(copy.deepcopy(vae).bfloat16()), images)
    for ours, theirs, expected in zip(fast, low, exact, strict=True):
        assert relative(ours, expected) < relative(theirs, expected)


def test_every_block_is_replaced_and_a_second_time_changes_nothing(images):
    fast = to_channels_last(build(**NARROW))
    once = coded(fast, images)
    for ours, theirs in zip(coded(to_channels_last(fast), images), once, strict=True):
        assert torch.equal(ours, theirs)
    kinds = {type(module).__name__ for module in fast.modules()}
    assert kinds.isdisjoint({"ResnetBlock2D", "Downsample2D", "Upsample2D", "SiLU"})
    assert sum(isinstance(module, nn.GroupNorm) for module in fast.modules()) == 22 + 30
