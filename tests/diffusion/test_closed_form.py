"""Schedules, scalings, solvers, samplers and averages against closed forms."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcm_distill.core.randomness import normal, permutation, uniform
from lcm_distill.diffusion.dpm_solver import two_stage_step
from lcm_distill.diffusion.ema import power_decay, update_average
from lcm_distill.diffusion.few_step_samplers import Consistency, Phased
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.noise import karras_sigmas, lognormal_sigmas, uniform_sigmas
from lcm_distill.diffusion.objectives.denoising import denoising_loss
from lcm_distill.diffusion.preconditioning import (
    apply_scalings,
    consistency_function,
    consistency_scalings,
    edm_denoiser,
)
from lcm_distill.diffusion.samplers import Euler, Heun, euler_step, heun_step
from tests.diffusion.gaussian import (
    CAPTIONS,
    SIGMA_DATA,
    SIGMA_MAX,
    SIGMA_MIN,
    Linear,
    exact_denoiser,
    exact_jump,
    flow,
    noise,
    zero_network,
)


def test_karras_schedule():
    sigmas = karras_sigmas(18, SIGMA_MIN, SIGMA_MAX, 7)
    assert sigmas.shape == (19,)
    assert sigmas[0].item() == pytest.approx(80) and sigmas[17].item() == pytest.approx(0.002) and sigmas[18] == 0
    roots = sigmas[:-1] ** (1 / 7)
    assert torch.allclose(roots.diff(), roots.diff()[0].expand(17))  # even steps in sigma^(1/rho)
    assert karras_sigmas(1, SIGMA_MIN, SIGMA_MAX, 7).tolist() == pytest.approx([80, 0])


def test_lognormal_sigmas_are_bounded_and_centred():
    draws = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    sigma = lognormal_sigmas(draws, -0.4, 1.2, 1e-9, 1e9)
    assert sigma.log().mean().item() == pytest.approx(-0.4, abs=0.02)
    assert sigma.log().std().item() == pytest.approx(1.2, abs=0.02)
    assert lognormal_sigmas(torch.tensor([-9.0, 9.0]), 0, 2, 0.5, 2).tolist() == [0.5, 2]


def test_uniform_sigmas_are_as_even_as_the_schedule():
    draws = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = uniform_sigmas(draws, SIGMA_MIN, SIGMA_MAX, 7)
    schedule = karras_sigmas(11, SIGMA_MIN, SIGMA_MAX, 7)[:-1].flip(0)
    shares = torch.bincount(torch.searchsorted(schedule, sigma), minlength=11)[1:] / len(sigma)
    assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.005)
    ends = uniform_sigmas(torch.tensor([0.0, 1.0]), 0.1, SIGMA_MAX, 7)
    assert ends.tolist() == pytest.approx([SIGMA_MAX, 0.1]) and ends.max() <= SIGMA_MAX


def test_zero_network_is_the_exact_denoiser():
    x, sigma = noise(3), torch.tensor([0.05, 1.0, 40.0], dtype=torch.float64)
    denoise = edm_denoiser(zero_network, SIGMA_DATA, CAPTIONS)
    assert torch.allclose(denoise(x, sigma), exact_denoiser(x, sigma), rtol=1e-12)


def test_consistency_function_is_the_identity_at_sigma_min():
    def wild(latents, c_noise, captions, guidance=None):
        return 1e3 * torch.ones_like(latents)

    x = noise(4)
    jump = consistency_function(wild, SIGMA_DATA, SIGMA_MIN, CAPTIONS, None)
    assert torch.equal(jump(x, torch.tensor([SIGMA_MIN], dtype=torch.float64)), x)


@pytest.mark.parametrize(("step", "order"), [(euler_step, 1.0), (heun_step, 2.0), (two_stage_step, 2.0)])
def test_solver_order(step, order):
    x = noise(2) * 3
    start, end = 3.0, 0.5
    errors, counts = [], np.array([16, 32, 64, 128])
    for count in counts:
        y, sigmas = x, torch.linspace(start, end, count + 1, dtype=torch.float64)
        for sigma, sigma_next in pairwise(sigmas):
            y = step(exact_denoiser, y, sigma[None], sigma_next[None])
        exact = flow(x, sigmas[:1], sigmas[-1:])
        errors.append((y - exact).norm().item())
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


def test_dpm_solver_is_exact_for_one_sample_and_nearer_than_heun_where_a_step_halves_high_noise():
    x, sigma, mean = noise(2), torch.tensor([0.7], dtype=torch.float64), 3.0
    stepped = two_stage_step(lambda x, sigma: torch.full_like(x, mean), x, sigma, sigma / 4)
    assert torch.allclose(stepped, mean + (x - mean) / 4)
    for start in (80.0, 10.0):
        sigma = torch.tensor([start], dtype=torch.float64)
        steps = [step(exact_denoiser, start * x, sigma, sigma / 2) for step in (heun_step, two_stage_step)]
        heun, dpm = ((y - flow(start * x, sigma, sigma / 2)).norm() for y in steps)
        assert dpm < heun / 5


def test_the_last_step_to_zero_is_eulers():
    x, sigmas = noise(2), torch.tensor([3.0, 2.0], dtype=torch.float64)
    at_two = heun_step(exact_denoiser, 3 * x, sigmas[:1], sigmas[1:])
    samples = Heun(2, sigma_min=2.0, sigma_max=3.0)(exact_denoiser, lambda step: x)
    assert torch.allclose(samples, exact_denoiser(at_two, sigmas[1:]))
    for sampler in (Euler(1, sigma_max=2.0), Heun(1, sigma_max=2.0)):
        assert torch.allclose(sampler(exact_denoiser, lambda step: x), exact_denoiser(2 * x, sigmas[1:]))


def test_network_evaluations_count_what_the_sampler_calls():
    calls = 0

    def counting(x, sigma):
        nonlocal calls
        calls += 1
        return exact_denoiser(x, sigma)

    for sampler, branches in ((Euler(5), 2), (Heun(5), 2), (Consistency((80.0, 2.0)), 1), (Phased((80.0, 2.0)), 1)):
        calls = 0
        sampler(counting, lambda step: noise(1))
        assert sampler.evaluations(guided=False) == calls
        assert sampler.evaluations(guided=True) == branches * calls


def test_samplers_are_values_with_falling_sigmas():
    assert [sampler.name for sampler in (Euler(1), Heun(1), Consistency((80.0,)), Phased((80.0,)))] == [
        "euler", "heun", "consistency", "phased",
    ]  # fmt: skip
    assert Heun(3).sigmas == tuple(karras_sigmas(3, 0.002, 80.0, 7.0)[:3].tolist()) and Heun(3).steps == 3
    assert Consistency((80.0, 2.0)).steps == Phased((80.0, 2.0)).steps == 2
    assert Heun(3) == Heun(3) != Euler(3) and len({Heun(3), Heun(3), Heun(3, rho=3.0)}) == 2


def test_edm_sampler_reaches_the_data():
    samples = Heun(64)(exact_denoiser, lambda step: noise(400))
    assert samples.std().item() == pytest.approx(SIGMA_DATA, rel=0.01)


@pytest.mark.parametrize("sigmas", [(80.0,), (80.0, 2.0), (80.0, 4.0, 1.5, 0.6)])
def test_consistency_sampler_reaches_the_data(sigmas):
    samples = Consistency(sigmas)(exact_jump, lambda step: noise(400, seed=step))
    assert samples.std().item() == pytest.approx(SIGMA_DATA, rel=0.01)


def test_every_step_takes_noise_of_its_own():
    seen = []
    Consistency((80.0, 4.0, 1.0))(exact_jump, lambda step: seen.append(step) or noise(1))
    assert seen == [0, 1, 2]


def test_guidance_one_equals_conditional():
    network, x, sigma = Linear(), noise(2), torch.tensor([0.5, 5.0], dtype=torch.float64)
    captions = torch.ones(2, 3, 4, dtype=torch.float64)
    conditional = edm_denoiser(network, SIGMA_DATA, captions)(x, sigma)
    assert torch.equal(guided_denoiser(network, SIGMA_DATA, captions, torch.ones(2))(x, sigma), conditional)
    mixed = guided_denoiser(network, SIGMA_DATA, captions, torch.tensor([1.0, 3.0]))(x, sigma)
    assert torch.allclose(mixed[0], conditional[0], rtol=1e-12)


def test_guidance_moves_away_from_the_null_caption():
    network, x, sigma = Linear(), noise(2), torch.tensor([0.5, 5.0], dtype=torch.float64)
    captions = torch.ones(2, 3, 4, dtype=torch.float64)
    conditional = edm_denoiser(network, SIGMA_DATA, captions)(x, sigma)
    null = edm_denoiser(network, SIGMA_DATA, torch.zeros_like(captions))(x, sigma)
    guided = guided_denoiser(network, SIGMA_DATA, captions, torch.full((2,), 4.0))(x, sigma)
    assert torch.allclose(guided, null + 4 * (conditional - null), rtol=1e-12)


def test_denoising_loss_of_a_zero_network_is_one():
    sigma = lognormal_sigmas(torch.randn(2000, generator=torch.Generator().manual_seed(1)), -0.4, 1.2, 0.002, 80)
    clean, added = SIGMA_DATA * noise(2000, seed=3), noise(2000, seed=4)
    denoise = edm_denoiser(zero_network, SIGMA_DATA, CAPTIONS)
    loss = denoising_loss(denoise, clean, added, sigma.double(), SIGMA_DATA)
    assert loss.mean().item() == pytest.approx(1, abs=0.02)


def test_power_average_weighs_updates_by_a_power_of_their_step():
    model, average = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    exponent, steps = 3.0, 40
    for step in range(1, steps + 1):
        nn.init.constant_(model.weight, float(step))
        update_average(average, model, power_decay(step, exponent))
    weights = np.array(
        [
            math.prod(power_decay(j, exponent) for j in range(i + 1, steps + 1)) * (1 - power_decay(i, exponent))
            for i in range(1, steps + 1)
        ]
    )
    assert weights.sum() == pytest.approx(1)
    assert average.weight.item() == pytest.approx(float(weights @ np.arange(1, steps + 1)), rel=1e-5)
    assert weights[-1] / weights[19] == pytest.approx((steps / 20) ** exponent, rel=0.1)


def test_randomness_is_addressed_not_drawn_in_order():
    whole = normal(0, "a", 3, range(6), (2, 2))
    assert torch.equal(whole[4:5], normal(0, "a", 3, [4], (2, 2)))
    others = [
        normal(1, "a", 3, [4], (2, 2)),
        normal(0, "b", 3, [4], (2, 2)),
        normal(0, "a", 2, [4], (2, 2)),
        whole[3:4],
    ]
    assert not any(torch.equal(whole[4:5], other) for other in others)
    many = normal(0, "a", 0, range(2000), (16,))
    assert many.mean().item() == pytest.approx(0, abs=0.02) and many.std().item() == pytest.approx(1, abs=0.02)
    assert uniform(0, "u", 0, range(4000)).mean().item() == pytest.approx(0.5, abs=0.02)
    assert sorted(permutation(0, "p", 1, 100)) == list(range(100))
    assert list(permutation(0, "p", 1, 100)) != list(permutation(0, "p", 2, 100))


def test_scalings_keep_unit_variance():
    # EDM table 1: the network's input has unit variance at every sigma.
    sigma = torch.tensor([0.01, 0.9, 30.0], dtype=torch.float64)
    x = SIGMA_DATA * noise(3, seed=1) + sigma.view(-1, 1, 1, 1) * noise(3, seed=2)
    seen = []

    def network(latents: Tensor, c_noise: Tensor, captions: Tensor, guidance: Tensor | None = None) -> Tensor:
        seen.append(latents)
        return latents

    apply_scalings(network, consistency_scalings(sigma, SIGMA_DATA, SIGMA_MIN), x, CAPTIONS)
    assert seen[0].std(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=0.15)
