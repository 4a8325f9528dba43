"""MicroDiT reproduces the outputs recorded from the reference implementation."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lcm_distill.models import MicroDiT, build

REFERENCE = Path(__file__).parents[1] / "reference"


def name_seeded(model: MicroDiT) -> MicroDiT:
    """Weights anyone can rebuild: each tensor drawn from a generator seeded by the CRC of its name."""
    for name, tensor in model.state_dict().items():
        if name in ("pos_embed", "mask_token"):
            continue
        draw = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if tensor.dim() == 1:
            value = 0.02 * draw + (1 if name.endswith("weight") else 0)
        elif tensor.dim() == 4:
            value = draw / np.sqrt(np.prod(tensor.shape[1:]))
        else:
            value = draw / np.sqrt(tensor.shape[1])
        tensor.copy_(value)
    return model


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 4, 32, 32, generator=generator)
    captions = torch.randn(2, 1, 77, 1024, generator=generator)
    return latents, captions, torch.tensor([-0.7, 0.9])


@pytest.fixture(scope="module")
def student() -> MicroDiT:
    return name_seeded(build("MicroDiT_Tiny_2", 32, 1024, guidance_embedding=True)).eval()


def relative_error(value: torch.Tensor, reference: np.ndarray) -> float:
    expected = torch.from_numpy(reference).double()
    return float((value.double() - expected).norm() / expected.norm())


def test_outputs_in_float64_and_float32(student, inputs):
    reference = np.load(REFERENCE / "tiny_2_forward.npz")
    latents, captions, c_noise = inputs
    with torch.no_grad():
        assert relative_error(student(latents, c_noise, captions), reference["no_cfg"]) < 1e-4
        student.double()
        latents, captions, c_noise = latents.double(), captions.double(), c_noise.double()
        conditional = student(latents, c_noise, captions)
        assert relative_error(conditional, reference["no_cfg"]) < 1e-6
        null = student(latents, c_noise, torch.zeros_like(captions))
        assert relative_error(null + 5 * (conditional - null), reference["cfg5"]) < 1e-6
        guidance = torch.tensor([3.0, 7.5], dtype=torch.float64)
        assert relative_error(student(latents, c_noise, captions, guidance), reference["w_3_7p5"]) < 1e-6


@pytest.mark.parametrize("name", ["MicroDiT_Tiny_2", "MicroDiT_XL_2"])
def test_layout_is_the_published_one(name):
    layout = json.loads((REFERENCE / f"{name}.state_dict.json").read_text())
    with torch.device("meta"):
        model = build(
            name, layout["latent_res"], 1024, pos_interp_scale=layout["pos_interp_scale"], guidance_embedding=True
        )
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == layout["tensors"]
    assert sum(p.numel() for p in model.parameters()) == layout["student_parameters"]
