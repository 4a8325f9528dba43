"""Distribution matching on Gaussian data, where the exact fake score of every student is known."""

import pytest
import torch
from torch import nn

from lcm_distill.diffusion.few_step_samplers import Consistency
from lcm_distill.diffusion.noise import lognormal_sigmas
from lcm_distill.diffusion.objectives.denoising import denoising_loss
from lcm_distill.diffusion.objectives.distribution_matching import (
    gradient_in_last_call,
    matching_loss,
    real_and_fake_scores,
)
from lcm_distill.diffusion.preconditioning import edm_denoiser
from lcm_distill.diffusion.samplers import Heun
from tests.diffusion.gaussian import (
    CAPTIONS,
    SIGMA_DATA,
    SIGMA_MAX,
    SIGMA_MIN,
    Linear,
    column,
    exact_denoiser,
    exact_jump,
    noise,
)

SIGMA = torch.tensor([0.1, 0.5, 2.0, 10.0], dtype=torch.float64)


def denoiser_of(std: float):
    """The exact denoiser of N(0, std^2)."""
    return lambda x, sigma: x * (std**2 / (std**2 + column(sigma, x) ** 2))


def scores_of(real, fake):
    """The scores of two exact denoisers."""
    return lambda x, sigma: (real(x, sigma), fake(x, sigma))


def pull(std: float) -> torch.Tensor:
    """The loss's derivative in a factor on samples of N(0, std^2), by sigma; the fake score is exact."""
    factor = torch.ones(4, dtype=torch.float64, requires_grad=True)
    samples = column(factor, noise(4)) * std * noise(4)
    matching_loss(scores_of(exact_denoiser, denoiser_of(std)), samples, noise(4, seed=1), SIGMA).sum().backward()
    assert factor.grad is not None
    return factor.grad


def test_samples_of_the_teachers_distribution_are_left_alone():
    assert pull(SIGMA_DATA).abs().max() < 1e-12


def test_too_wide_samples_are_pulled_in_and_too_narrow_ones_spread():
    assert (pull(1.2 * SIGMA_DATA) > 1e-3).all()
    assert (pull(0.8 * SIGMA_DATA) < -1e-3).all()


def test_a_guided_denoiser_has_less_variance_than_its_own_trajectories_end_in():
    with_caption, without, guidance = 0.5, 1.0, 2.0

    def guided(x, sigma):
        return guidance * denoiser_of(with_caption)(x, sigma) - (guidance - 1) * denoiser_of(without)(x, sigma)

    samples = Heun(256, SIGMA_MIN, SIGMA_MAX)(guided, lambda step: noise(4))
    ends_in = with_caption**guidance * without ** (1 - guidance)
    assert torch.allclose(samples, ends_in * noise(4), rtol=1e-3)
    far = torch.tensor([1000.0], dtype=torch.float64)
    variance = guidance * with_caption**2 - (guidance - 1) * without**2
    assert torch.allclose(far**2 * guided(noise(1), far), variance * noise(1), rtol=1e-4) and variance < ends_in**2


def test_gradient_is_the_normalised_difference():
    samples, added, fake = noise(4).requires_grad_(), noise(4, seed=1), denoiser_of(1.5)
    matching_loss(scores_of(exact_denoiser, fake), samples, added, SIGMA).sum().backward()
    noisy = samples.detach() + column(SIGMA, added) * added
    real = exact_denoiser(noisy, SIGMA)
    size = (samples.detach() - real).abs().mean(dim=(1, 2, 3), keepdim=True)
    expected = (fake(noisy, SIGMA) - real) / size / samples[0].numel()
    assert samples.grad is not None and torch.allclose(samples.grad, expected, rtol=1e-9)


WITH_CAPTION, WITHOUT = denoiser_of(0.7), denoiser_of(0.9)
SCALES = torch.tensor([1.0, 1.5, 2.0, 3.0], dtype=torch.float64)


def branches(x, sigma):
    return WITH_CAPTION(x, sigma), WITHOUT(x, sigma)


def at(scale: float, x: torch.Tensor) -> torch.Tensor:
    return scale * WITH_CAPTION(x, SIGMA) - (scale - 1) * WITHOUT(x, SIGMA)


def test_fake_score_starts_as_the_teacher_at_the_assumed_guidance_and_moves_with_its_network():
    noisy, assumed = noise(4) * column(SIGMA, noise(4)), torch.tensor([2.5], dtype=torch.float64)
    start, moved = (real_and_fake_scores(branches, learning, SCALES, assumed)(noisy, SIGMA)[1]
                    for learning in (WITH_CAPTION, denoiser_of(0.8)))  # fmt: skip
    assert torch.allclose(start, at(2.5, noisy), rtol=1e-12)
    assert torch.allclose(moved - start, denoiser_of(0.8)(noisy, SIGMA) - WITH_CAPTION(noisy, SIGMA), rtol=1e-9)


def test_samples_are_matched_with_the_teacher_at_a_guidance_of_each():
    noisy = noise(4) * column(SIGMA, noise(4))
    real, _ = real_and_fake_scores(branches, WITH_CAPTION, SCALES, SCALES[:1])(noisy, SIGMA)
    for place, scale in enumerate(SCALES.tolist()):
        assert torch.allclose(real[place], at(scale, noisy)[place], rtol=1e-12)


def test_student_that_ignores_guidance_is_pushed_towards_it():
    """Samples that are alike at all scales move towards the caption's more, the higher their scale."""
    samples = noise(1).expand(4, -1, -1, -1).clone().requires_grad_()
    sigma, added = torch.full((4,), 0.5, dtype=torch.float64), noise(1, seed=1).expand(4, -1, -1, -1)
    scores = real_and_fake_scores(branches, WITH_CAPTION, SCALES, SCALES.mean()[None])
    matching_loss(scores, samples, added, sigma).sum().backward()
    noisy = (samples + 0.5 * added).detach()[:1]
    towards_caption = WITH_CAPTION(noisy, sigma[:1]) - WITHOUT(noisy, sigma[:1])
    assert samples.grad is not None
    moved = -(samples.grad * towards_caption).sum(dim=(1, 2, 3))
    assert (moved.diff() > 0).all() and moved[0] < 0 < moved[-1]


def test_neither_teacher_nor_fake_score_receives_a_gradient():
    teacher, fake, samples = Linear(0.1), Linear(0.2), noise(4).requires_grad_()
    captions = torch.ones(4, 3, 4, dtype=torch.float64)
    denoisers = [edm_denoiser(network, SIGMA_DATA, captions) for network in (teacher, fake)]
    matching_loss(scores_of(*denoisers), samples, noise(4, seed=1), SIGMA).sum().backward()
    assert teacher.gain.grad is None and fake.gain.grad is None and samples.grad is not None


class Scale(nn.Module):
    """A student that samples N(0, factor^2), and a fake score that is its exact denoiser at the same factor."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, latents, c_noise, captions, guidance=None):
        sigma, total = (4 * c_noise).exp(), self.factor**2 + (4 * c_noise).exp() ** 2
        x = latents * column((sigma**2 + SIGMA_DATA**2).sqrt(), latents)
        skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
        out = sigma * SIGMA_DATA / (sigma**2 + SIGMA_DATA**2).sqrt()
        return (column(self.factor**2 / total - skip, x) * x) / column(out, x)


def test_student_and_fake_score_train_to_the_teachers_distribution():
    student, fake = Scale(0.5), Scale(SIGMA_DATA)
    groups = [{"params": student.parameters(), "share": 1}, {"params": fake.parameters(), "share": 5}]
    optimiser = torch.optim.Adam(groups, lr=0.0)
    for step in range(600):
        draws = [torch.randn(64, generator=torch.Generator().manual_seed(2 * step + n), dtype=torch.float64)
                 for n in range(2)]  # fmt: skip
        sigma = [lognormal_sigmas(draw, -0.2, 1.4, SIGMA_MIN, SIGMA_MAX) for draw in draws]
        samples = student.factor * noise(64, seed=3 * step)
        fake_score = edm_denoiser(fake, SIGMA_DATA, CAPTIONS)
        learnt = denoising_loss(fake_score, samples.detach(), noise(64, seed=3 * step + 1), sigma[0], SIGMA_DATA)
        matched = matching_loss(scores_of(exact_denoiser, fake_score), samples, noise(64, seed=3 * step + 2), sigma[1])
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * (1 - step / 600) * group["share"]
        optimiser.zero_grad()
        (learnt + matched).mean().backward()
        optimiser.step()
    assert student.factor.item() == pytest.approx(SIGMA_DATA, rel=0.02)


@pytest.mark.parametrize("calls", [1, 3])
def test_gradient_flows_through_the_last_step_alone(calls):
    factor = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    seen = []

    def jump(x, sigma):
        seen.append(torch.is_grad_enabled())
        return factor * exact_jump(x, sigma)

    sampler = Consistency((80.0, 4.0, 1.5)[:calls], SIGMA_MIN)
    samples = sampler(gradient_in_last_call(jump, calls), lambda step: noise(2, seed=step))
    whole = sampler(exact_jump, lambda step: noise(2, seed=step))
    assert torch.equal(samples.detach(), whole) and seen == [False] * (calls - 1) + [True]
    (gradient,) = torch.autograd.grad(samples.sum(), factor)
    assert gradient.item() == pytest.approx(whole.sum().item())
