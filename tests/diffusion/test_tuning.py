"""Consistency tuning: intervals proportional to sigma."""

import dataclasses
import math

import pytest
import torch

from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.objectives.pairs import PairLoss, l2, pseudo_huber
from lcm_distill.diffusion.objectives.tuning import Tuning
from lcm_distill.diffusion.samplers import euler_step, heun_step
from tests.diffusion.gaussian import (
    SIGMA,
    SIGMA_DATA,
    SIGMA_MAX,
    SIGMA_MIN,
    Linear,
    ScaleBySigma,
    SmoothScale,
    consistency,
    exact_denoiser,
    exact_jump,
    gradient_at,
    losses,
    noise,
    trained,
)

DEFAULT = Tuning(PairLoss(heun_step, pseudo_huber(0.03)), 0.75, 0, 0.0, False, SIGMA_MIN, 0.02)


def with_exact_target(student) -> Networks:
    return Networks(student, exact_jump, exact_denoiser)


def test_default_is_three_quarters_snapping_to_sigma_min():
    sigma = torch.tensor([80.0, 1.0, 0.02, 0.003])
    for progress in (0.0, 0.99):
        assert DEFAULT.sigma_next(sigma, progress).tolist() == pytest.approx([60, 0.75, SIGMA_MIN, SIGMA_MIN])
    assert DEFAULT.lowest_sigma == SIGMA_MIN / 0.75


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_default_is_bit_for_bit_a_huber_loss_of_fixed_ratio(dtype):
    clean, added, sigma = (x.to(dtype) for x in (SIGMA_DATA * noise(4, seed=5), noise(4), SIGMA))
    student, target, teacher = (consistency(Linear(gain).to(dtype)) for gain in (0.3, 0.2, 0.1))
    noisy = clean + sigma.view(-1, 1, 1, 1) * added
    sigma_next = sigma * 0.75
    expected_target = target(heun_step(teacher, noisy, sigma, sigma_next), sigma_next)
    expected = ((student(noisy, sigma) - expected_target).square().mean(dim=(1, 2, 3)) + 0.03**2).sqrt() - 0.03
    assert torch.equal(DEFAULT(Networks(student, target, teacher), clean, added, sigma, 0.7), expected)


def test_intervals_of_the_paper():
    """q = 2, k = 8, b = 1, d = an eighth of the training: r / t = 1 - (1 + 8 sigmoid(-t)) / 2^a, not below 0."""
    published = dataclasses.replace(DEFAULT, gap_ratio=0.5, halvings=7, widening=8.0, snap_below=SIGMA_MIN)
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    for stage in range(1, 9):
        ratio = 1 - (1 + 8 / (1 + sigma.exp())) / 2**stage
        expected = (sigma * ratio).clamp(min=SIGMA_MIN)
        for progress in ((stage - 1) / 8, (stage - 0.01) / 8):
            assert torch.allclose(published.sigma_next(sigma, progress), expected, rtol=1e-12)


@pytest.mark.parametrize(("solver", "order"), [(euler_step, 2), (heun_step, 3)])
def test_gradient_at_the_exact_map_vanishes_with_the_gap(solver, order):
    objective = dataclasses.replace(DEFAULT, pair_loss=PairLoss(solver, l2), gap_ratio=0.96, halvings=1)
    coarse, fine = (gradient_at(objective, exact_jump, SIGMA, progress).abs() for progress in (0.0, 0.5))
    # The local error of one solver step is one order above the solver's, and halving the gap divides it by 2^order.
    assert (coarse / fine).log2().tolist() == pytest.approx([order] * 4, abs=0.1)
    assert fine.max() < 1e-3


def test_pseudo_huber_of_a_known_error():
    loss = losses(DEFAULT, with_exact_target(lambda x, sigma: exact_jump(x, sigma) + 0.1))
    assert loss.tolist() == pytest.approx([math.hypot(0.1, 0.03) - 0.03] * 4, rel=1e-2)


def test_l2_of_a_known_error():
    plain = dataclasses.replace(DEFAULT, pair_loss=PairLoss(heun_step, l2))
    loss = losses(plain, with_exact_target(lambda x, sigma: exact_jump(x, sigma) + 0.1))
    assert loss.tolist() == pytest.approx([0.01] * 4, rel=1e-1)


def test_inverse_gap_weight():
    networks = with_exact_target(lambda x, sigma: exact_jump(x, sigma) + 0.1)
    weighted = dataclasses.replace(DEFAULT, inverse_gap_weight=True)
    assert torch.allclose(losses(weighted, networks) * 0.25 * SIGMA, losses(DEFAULT, networks), rtol=1e-12)


PUBLISHED = dataclasses.replace(DEFAULT, gap_ratio=0.5, halvings=4, widening=8.0, inverse_gap_weight=True)


@pytest.mark.parametrize(
    ("objective", "network", "target_decay"),
    [(DEFAULT, ScaleBySigma, 0.95), (PUBLISHED, SmoothScale, 0.0)],
    ids=["default", "as published"],
)
def test_trains_to_the_exact_map(objective, network, target_decay):
    jump = trained(objective, network(), 1500, target_decay)
    with torch.no_grad():
        samples = jump(SIGMA_MAX * noise(200), torch.tensor([SIGMA_MAX], dtype=torch.float64))
    assert samples.std().item() == pytest.approx(SIGMA_DATA, rel=0.02)
