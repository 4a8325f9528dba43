# The types that diffusers declares do not describe what it returns.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportPrivateImportUsage=false
"""Latents of VAEs with a shift, or a mean and std of their channels, are those of diffusers' pipelines."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL

from lcm_distill.core.errors import UserError
from lcm_distill.encoders.images import load_image_encoder, normalisation_of, scaling_of
from tests.encoders.test_images import SDXL
from tests.tensors import relative

SHIFTS = {
    "shift_factor": {"shift_factor": 0.1159, "scaling_factor": 0.3611},
    "mean and std": {
        "latents_mean": [-1.6, 1.1, 0.7, -0.3],
        "latents_std": [9.1, 6.4, 5.2, 7.7],
        "scaling_factor": 0.5,
    },
}


@pytest.mark.parametrize("name", SHIFTS)
def test_latents_are_shifted_as_diffusers_pipelines_shift_them(tmp_path, name):
    """StableDiffusion3Pipeline and FluxPipeline have a shift, StableDiffusionXLPipeline mean and std."""
    config = {**SDXL, **SHIFTS[name]}
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(config)
    vae.save_pretrained(tmp_path)
    encoder, noise = load_image_encoder(str(tmp_path)), torch.randn(2, 4, 4, 4)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        posterior = vae.encode(images).latent_dist
        own = posterior.mean + posterior.std * noise
        if name == "shift_factor":
            expected = (own - vae.config.shift_factor) * vae.config.scaling_factor
            back = expected / vae.config.scaling_factor + vae.config.shift_factor
        else:
            mean, std = (torch.tensor(vae.config[key]).view(1, 4, 1, 1) for key in ("latents_mean", "latents_std"))
            expected = (own - mean) * vae.config.scaling_factor / std
            back = expected * std / vae.config.scaling_factor + mean
        decoded = (vae.decode(back).sample / 2 + 0.5).clamp(0, 1)
    latents = encoder.encode(images, noise)
    assert relative(latents, expected) < 1e-6 and relative(back, own) < 1e-5
    assert relative(encoder.decode(latents), decoded) < 1e-5
    assert encoder.normalisation.keys() == ({"shift"} if name == "shift_factor" else {"shift", "std"})


@pytest.mark.parametrize(
    "wrong", ["0.5", [1.0], {"a": 1}, 10**400, 1e308, float("nan")], ids=lambda value: f"{value!r:.9}"
)
@pytest.mark.parametrize("name", ["scaling_factor", "shift_factor", "latents_mean", "latents_std"])
def test_what_is_no_number_in_a_configuration_is_one_line(name, wrong):
    sound = {"scaling_factor": 0.5, "latent_channels": 2}
    both = {} if name.endswith("factor") else {"latents_mean": [0.0, 1.0], "latents_std": [1.0, 2.0]}
    config = SimpleNamespace(**{**sound, **both, name: wrong})
    with pytest.raises(UserError, match=f"encoders.vae: .*{name}") as refused:
        assert scaling_of(config)
        normalisation_of(config)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200


def test_a_mean_without_a_std_is_refused(tmp_path):
    AutoencoderKL.from_config({**SDXL, "latents_mean": [0.0, 0.0, 0.0, 0.0]}).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="mean and std belong together"):
        load_image_encoder(str(tmp_path))
