"""The null caption and masked patches: less is computed, and what is left is the same."""

import pytest
import torch

from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.preconditioning import edm_denoiser
from lcm_distill.kernels.residual import add
from lcm_distill.models import build
from tests.tensors import name_seeded, random_doubles


@pytest.fixture(scope="module")
def teacher():
    with torch.no_grad():
        return name_seeded(build("MicroDiT_Nano_2", 8, 64, in_channels=8)).double()


def test_one_null_token_stands_for_a_whole_null_caption(teacher):
    captions, x = random_doubles(1, 3, 5, 64), random_doubles(2, 3, 8, 8, 8)
    sigma, strength = torch.tensor([0.1, 1.0, 40.0]).double(), torch.tensor([1.0, 3.0, 7.5]).double()
    with torch.no_grad():
        guided = guided_denoiser(teacher, 0.9, captions, strength)
        conditional = edm_denoiser(teacher, 0.9, captions)(x, sigma)
        null = edm_denoiser(teacher, 0.9, torch.zeros_like(captions))(x, sigma)
        expected = null + strength.view(-1, 1, 1, 1) * (conditional - null)
        assert (conditional - null).norm() > 0.01 * conditional.norm()
        assert torch.allclose(guided(x, sigma), expected, rtol=1e-11, atol=1e-12)


def test_masking_drops_patches_after_the_mixer(teacher):
    captions, x, c_noise = (
        random_doubles(1, 3, 5, 64),
        random_doubles(2, 3, 8, 8, 8),
        random_doubles(3, 3),
    )
    kept, seen = torch.tensor([[0, 5, 9, 15], [1, 2, 3, 4], [3, 7, 11, 15]]), {}
    hooks = [
        teacher.patch_mixer[-1].register_forward_hook(lambda m, inputs, out: seen.update(mixed=add(*out))),
        teacher.blocks[0].register_forward_pre_hook(lambda m, inputs: seen.update(entering=inputs[0])),
    ]
    with torch.no_grad():
        out = teacher(x, c_noise, captions, kept=kept)
        everything = teacher(x, c_noise, captions, kept=torch.arange(16).expand(3, -1))
        assert torch.equal(everything, teacher(x, c_noise, captions))
        mixed_of = [seen["mixed"][sample] for sample in range(3)]
        teacher(x, c_noise, captions, kept=kept)
    for hook in hooks:
        hook.remove()
    assert seen["entering"].shape == (3, 4, 128)
    for sample in range(3):
        assert torch.equal(seen["entering"][sample], mixed_of[sample][kept[sample]])
    patches = out.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).permute(0, 2, 3, 1, 4).flatten(1, 2).flatten(2)
    shown = torch.zeros(3, 16, dtype=torch.bool).scatter(1, kept, True)
    assert (patches.abs().sum(-1) > 0).equal(shown)
