"""Continuous-time consistency distillation against TrigFlow's own definitions."""

import dataclasses

import pytest
import torch

from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.objectives.scm import ContinuousTime
from lcm_distill.diffusion.preconditioning import consistency_function
from tests.diffusion.gaussian import (
    CAPTIONS,
    SIGMA_DATA,
    SIGMA_MAX,
    SIGMA_MIN,
    SmoothScale,
    column,
    exact_denoiser,
    exact_jump,
    gradient_at,
    noise,
    trained,
)

OBJECTIVE = ContinuousTime(SIGMA_DATA, SIGMA_MIN, normalisation=0.1, tangent_warmup=0.5)
SIGMA = torch.tensor([0.003, 0.3, 1.0, 5.0, 80.0], dtype=torch.float64)
NOISY = SIGMA_DATA * noise(5, seed=5) + column(SIGMA, noise(1)) * noise(5)


def wavy(latents, c_noise, captions, guidance=None):
    """A network without symmetries, which mixes places and sigmas."""
    return torch.sin(2 * latents.roll(1, -1) + latents * c_noise.view(-1, 1, 1, 1)) + latents.square() / 4


def trigflow_tangent(x: torch.Tensor, sigma: torch.Tensor, share: float) -> torch.Tensor:
    """Eq. 6 of the paper times cos(t), in its own variables, with central differences for dF/dt."""
    t = torch.atan(sigma / SIGMA_DATA)
    cos, sin = column(t.cos(), x), column(t.sin(), x)
    x_t = cos * x

    def network(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return -wavy(x_t / SIGMA_DATA, (SIGMA_DATA * t.tan()).log() / 4, CAPTIONS)

    velocity = (cos * x_t - exact_denoiser(x, sigma)) / sin  # from x_0 = cos(t) x_t - sin(t) dx_t/dt
    # Sigmas are crowded at both ends of t, so the step is small there.
    step = 1e-5 * t.sin() * t.cos()
    ahead, behind = (network(x_t + column(h, x) * velocity, t + h) for h in (step, -step))
    slope = (ahead - behind) / column(2 * step, x)
    return -(cos**2) * (SIGMA_DATA * network(x_t, t) - velocity) - share * cos * sin * (x_t + SIGMA_DATA * slope)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_tangent_is_that_of_trigflow(share):
    # With the boundary at 0 the consistency function is the paper's own.
    student = consistency_function(wavy, SIGMA_DATA, 0.0, CAPTIONS, None)
    tangent = OBJECTIVE.tangent(Networks(student, student, exact_denoiser), NOISY, SIGMA, progress=share / 2)
    expected = trigflow_tangent(NOISY, SIGMA, share)
    errors = (tangent - expected).square().mean(dim=(1, 2, 3)) / expected.square().mean(dim=(1, 2, 3))
    assert errors.max() < 1e-12


def test_gradient_is_that_of_the_papers_loss():
    """Eq. 8 without its learned weight: |F - F_detached - g|^2 with F of TrigFlow, the network's sign changed."""
    shift = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def shifted(latents, c_noise, captions, guidance=None):
        return wavy(latents, c_noise, captions) + shift * latents

    student = consistency_function(shifted, SIGMA_DATA, 0.0, CAPTIONS, None)
    networks = Networks(student, student, exact_denoiser)
    clean, added = SIGMA_DATA * noise(5, seed=5), noise(5)
    (gradient,) = torch.autograd.grad(OBJECTIVE(networks, clean, added, SIGMA, 0.9).sum(), shift)
    tangent = trigflow_tangent(NOISY, SIGMA, 1.0)
    tangent = tangent / (tangent.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 0.1)
    output = -shift * NOISY / (column(SIGMA, NOISY) ** 2 + SIGMA_DATA**2).sqrt()
    paper = (output - output.detach() - tangent).square().mean(dim=(1, 2, 3))
    (expected,) = torch.autograd.grad(paper.sum(), shift)
    assert gradient.item() == pytest.approx(expected.item(), rel=1e-6)


def test_gradient_at_the_exact_map_is_zero():
    gradient = gradient_at(OBJECTIVE, exact_jump, SIGMA, progress=0.9)
    wrong = gradient_at(OBJECTIVE, lambda x, sigma: exact_jump(x, 1.01 * sigma), SIGMA, progress=0.9)
    # Rounding grows with 1 / sin(t)^2, 9e4 at the lowest of these sigmas.
    assert (gradient / wrong).abs().max() < 1e-9 and gradient[1:].abs().max() < 1e-13


def test_without_progress_the_student_is_trained_to_be_the_teacher():
    towards, away = (gradient_at(OBJECTIVE, jump, SIGMA, progress=0.0) for jump in (exact_denoiser, exact_jump))
    assert (towards / away).abs().max() < 1e-9
    eager = dataclasses.replace(OBJECTIVE, tangent_warmup=0.0)
    assert (gradient_at(eager, exact_jump, SIGMA, progress=0.0) / away).abs().max() < 1e-9


def test_normalised_tangents_have_a_size_below_one():
    tangent = torch.stack([torch.full((4, 8, 8), size) for size in (0.0, 0.1, 1e4)])
    sizes = OBJECTIVE.normalise(tangent).square().mean(dim=(1, 2, 3)).sqrt()
    assert sizes.tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-4)


def test_trains_to_the_exact_map():
    jump = trained(OBJECTIVE, SmoothScale(), 800)
    with torch.no_grad():
        samples = jump(SIGMA_MAX * noise(200), torch.tensor([SIGMA_MAX], dtype=torch.float64))
    assert samples.std().item() == pytest.approx(SIGMA_DATA, rel=0.02)
