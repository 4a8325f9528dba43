"""MicroDiT under our EDM sampler reproduces images recorded from the reference implementation."""

import numpy as np
import pytest
import torch

from lcm_distill.diffusion.guidance import denoiser_at
from lcm_distill.diffusion.samplers import Heun
from lcm_distill.models import build
from tests.models.test_parity import REFERENCE
from tests.tensors import name_seeded, relative


@pytest.fixture(scope="module")
def model():
    return name_seeded(build("MicroDiT_Tiny_2", 16, 1024)).double().eval()


@pytest.mark.parametrize(("steps", "guidance"), [(5, 1), (5, 3), pytest.param(18, 2, marks=pytest.mark.slow)])
def test_heun_sampler(model, steps, guidance):
    reference = np.load(REFERENCE / "tiny_2_edm_sampler.npz")[f"heun{steps}_cfg{guidance}"]
    generator = torch.Generator().manual_seed(11)
    noise = torch.randn(2, 4, 16, 16, generator=generator).double()
    captions = torch.randn(2, 1, 77, 1024, generator=generator).double().squeeze(1)
    with torch.no_grad():
        denoise = denoiser_at(model, 0.9, captions, guidance)
        samples = Heun(steps)(denoise, lambda step: noise)
    assert relative(samples, torch.from_numpy(reference)) < 1e-6
