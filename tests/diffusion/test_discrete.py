"""Consistency distillation on a fixed grid."""

import dataclasses

import pytest
import torch

from lcm_distill.diffusion.noise import karras_sigmas, lognormal_sigmas, uniform_sigmas
from lcm_distill.diffusion.objectives.discrete import Discrete
from lcm_distill.diffusion.objectives.pairs import PairLoss, l2
from lcm_distill.diffusion.samplers import euler_step, heun_step
from tests.diffusion.gaussian import (
    SIGMA_DATA,
    SIGMA_MAX,
    SIGMA_MIN,
    ScaleBySigma,
    exact_jump,
    gradient_at,
    noise,
    trained,
)


def grid(points: int) -> torch.Tensor:
    return karras_sigmas(points, SIGMA_MIN, SIGMA_MAX, 7)[:-1].flip(0)


ORIGINAL = Discrete(PairLoss(heun_step, l2), grid(40), skip=1)


@pytest.mark.parametrize("skip", [1, 4])
def test_sigmas_spread_like_the_schedule_fall_on_every_start_equally_often(skip):
    objective = dataclasses.replace(ORIGINAL, skip=skip)
    draws = torch.rand(78_000, generator=torch.Generator().manual_seed(0))
    sigma, sigma_next = objective.pair(uniform_sigmas(draws, objective.lowest_sigma, SIGMA_MAX, 7))
    starts, counts = sigma.unique(return_counts=True)
    assert torch.equal(starts, grid(40)[skip:].float())
    assert torch.equal(sigma_next.unique(), grid(40)[:-skip].float())
    expected = len(draws) / (40 - skip)
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_pairs_are_neighbours_at_the_chosen_distance():
    objective = dataclasses.replace(ORIGINAL, skip=3)
    points = grid(40)
    sigma, sigma_next = objective.pair(points[3:])
    assert torch.equal(sigma, points[3:]) and torch.equal(sigma_next, points[:-3])
    assert [point.item() for point in objective.pair(points[:1])] == [points[3], points[0]]


def test_lognormal_sigmas_are_rounded_up_to_the_grid():
    draws = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    drawn = lognormal_sigmas(draws, 0.0, 1.8, ORIGINAL.lowest_sigma, SIGMA_MAX)
    sigma, sigma_next = ORIGINAL.pair(drawn)
    assert (sigma_next < drawn + 1e-9).all() and (drawn <= sigma).all()
    assert ORIGINAL.pair(torch.tensor([SIGMA_MAX]))[0] == SIGMA_MAX


@pytest.mark.parametrize(("solver", "order"), [(euler_step, 2), (heun_step, 3)])
def test_gradient_at_the_exact_map_vanishes_with_the_gap(solver, order):
    sigma = grid(321)[[120, 200, 280]]
    coarse, fine = (
        gradient_at(Discrete(PairLoss(solver, l2), grid(321), skip), exact_jump, sigma).abs() for skip in (2, 1)
    )
    assert (coarse / fine).log2().tolist() == pytest.approx([order] * 3, abs=0.1)
    assert fine.max() < 1e-3


def test_trains_to_the_exact_map():
    jump = trained(ORIGINAL, ScaleBySigma(), 1500)
    with torch.no_grad():
        samples = jump(SIGMA_MAX * noise(200), torch.tensor([SIGMA_MAX], dtype=torch.float64))
    assert samples.std().item() == pytest.approx(SIGMA_DATA, rel=0.02)
