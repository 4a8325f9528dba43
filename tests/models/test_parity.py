"""MicroDiT reproduces the outputs recorded from the reference implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lcm_distill.models import MicroDiT, build
from tests.tensors import name_seeded, relative

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 4, 32, 32, generator=generator)
    captions = torch.randn(2, 1, 77, 1024, generator=generator)
    return latents, captions, torch.tensor([-0.7, 0.9])


@pytest.fixture(scope="module")
def student() -> MicroDiT:
    return name_seeded(build("MicroDiT_Tiny_2", 32, 1024, guidance_embedding=True)).eval()


def test_outputs_in_float64_and_float32(student, inputs):
    stored = np.load(REFERENCE / "tiny_2_forward.npz")
    recorded = {name: torch.from_numpy(stored[name]) for name in stored.files}
    latents, captions, c_noise = inputs
    with torch.no_grad():
        assert relative(student(latents, c_noise, captions), recorded["no_cfg"]) < 1e-4
        student.double()
        latents, captions, c_noise = latents.double(), captions.double(), c_noise.double()
        conditional = student(latents, c_noise, captions)
        assert relative(conditional, recorded["no_cfg"]) < 1e-6
        null = student(latents, c_noise, torch.zeros_like(captions))
        assert relative(null + 5 * (conditional - null), recorded["cfg5"]) < 1e-6
        guidance = torch.tensor([3.0, 7.5], dtype=torch.float64)
        assert relative(student(latents, c_noise, captions, guidance), recorded["w_3_7p5"]) < 1e-6


@pytest.mark.parametrize("name", ["MicroDiT_Tiny_2", "MicroDiT_XL_2"])
def test_layout_is_the_published_one(name):
    layout = json.loads((REFERENCE / f"{name}.state_dict.json").read_text())
    with torch.device("meta"):
        model = build(
            name, layout["latent_res"], 1024, pos_interp_scale=layout["pos_interp_scale"], guidance_embedding=True
        )
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == layout["tensors"]
    assert sum(p.numel() for p in model.parameters()) == layout["student_parameters"]
