"""Consistency within phases, and the sampler along their edges."""

import dataclasses

import pytest
import torch

from lcm_distill.diffusion.few_step_samplers import Phased as PhasedSampler
from lcm_distill.diffusion.objectives.interface import Networks
from lcm_distill.diffusion.objectives.pairs import PairLoss, l2, pseudo_huber
from lcm_distill.diffusion.objectives.phased import Phased
from lcm_distill.diffusion.objectives.tuning import Tuning
from lcm_distill.diffusion.preconditioning import jump_to
from lcm_distill.diffusion.samplers import euler_step, heun_step
from tests.diffusion.gaussian import (
    SIGMA_DATA,
    SIGMA_MAX,
    SIGMA_MIN,
    Linear,
    ScaleBySigma,
    column,
    consistency,
    exact_denoiser,
    flow,
    gradient_at,
    noise,
    trained,
)

SAMPLER = PhasedSampler((SIGMA_MAX, 4.0, 1.5, 0.6), SIGMA_MIN)
OBJECTIVE = Phased(PairLoss(heun_step, pseudo_huber(0.03)), 0.75, (SIGMA_MIN, 0.6, 1.5, 4.0))
SIGMA = torch.tensor([0.3, 1.0, 3.0, 80.0], dtype=torch.float64)


def exact_prediction(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The prediction from which the step lands on the trajectory at the phase's lower edge."""
    edge = OBJECTIVE.lower_edge(sigma)
    share = column((edge - SIGMA_MIN) / (sigma - SIGMA_MIN), x)
    return torch.where(column(sigma, x) > column(edge, x), (flow(x, sigma, edge) - share * x) / (1 - share), x)


def test_an_edge_belongs_to_the_phase_below():
    sigma = torch.tensor([80.0, 4.01, 4.0, 1.0, 0.6, 0.002])
    assert OBJECTIVE.lower_edge(sigma).tolist() == pytest.approx([4, 4, 1.5, 0.6, SIGMA_MIN, SIGMA_MIN])


def test_jump_is_the_identity_at_its_edge_and_the_function_at_sigma_min():
    function, x = consistency(Linear()), noise(3)
    sigma = torch.tensor([SIGMA_MIN, 0.6, 4.0], dtype=torch.float64)
    assert torch.allclose(jump_to(function, x, sigma, sigma, SIGMA_MIN), x, rtol=1e-12)
    assert torch.equal(jump_to(function, x, sigma, torch.full_like(sigma, SIGMA_MIN), SIGMA_MIN), function(x, sigma))


def test_pairs_do_not_cross_edges():
    seen = []

    def solver(denoise, x, sigma, sigma_next):
        seen.append(sigma_next)
        return heun_step(denoise, x, sigma, sigma_next)

    objective = dataclasses.replace(OBJECTIVE, pair_loss=PairLoss(solver, l2))
    sigma = torch.tensor([80.0, 4.1, 4.0, 0.61, 0.6, objective.lowest_sigma], dtype=torch.float64)
    student = consistency(Linear())
    objective(Networks(student, student, exact_denoiser), noise(6), noise(6), sigma, 0.0)
    assert seen[0].tolist() == pytest.approx([60, 4, 3, 0.6, 0.45, SIGMA_MIN])


def test_one_phase_is_plain_consistency_distillation():
    networks = Networks(consistency(Linear(0.3)), consistency(Linear(0.2)), exact_denoiser)
    plain = Tuning(OBJECTIVE.pair_loss, 0.75, 0, 0.0, False, SIGMA_MIN, snap_below=SIGMA_MIN)
    batch = (noise(4, seed=5), noise(4), SIGMA, 0.0)
    assert torch.equal(dataclasses.replace(OBJECTIVE, edges=(SIGMA_MIN,))(networks, *batch), plain(networks, *batch))
    assert not torch.allclose(OBJECTIVE(networks, *batch), plain(networks, *batch), rtol=0.1)


@pytest.mark.parametrize(("solver", "order"), [(euler_step, 2), (heun_step, 3)])
def test_gradient_at_the_exact_map_vanishes_with_the_gap(solver, order):
    plain = dataclasses.replace(OBJECTIVE, pair_loss=PairLoss(solver, l2))
    coarse, fine = (
        gradient_at(dataclasses.replace(plain, gap_ratio=ratio), exact_prediction, SIGMA) for ratio in (0.96, 0.98)
    )
    assert (coarse / fine).abs().log2().tolist() == pytest.approx([order] * 4, abs=0.1)
    assert fine.abs().max() < 1e-3


def test_sampler_follows_the_trajectory_from_edge_to_edge():
    x = noise(3)
    samples = SAMPLER(exact_prediction, lambda step: x)
    ends = torch.tensor([SIGMA_MAX, SIGMA_MIN], dtype=torch.float64)
    assert torch.allclose(samples, flow(SIGMA_MAX * x, ends[:1], ends[1:]), rtol=1e-10)


def test_trains_to_the_exact_map():
    jump = trained(OBJECTIVE, ScaleBySigma(OBJECTIVE.edges[1:]), 1500)
    with torch.no_grad():
        samples = SAMPLER(jump, lambda step: noise(200))
    assert samples.std().item() == pytest.approx(SIGMA_DATA, rel=0.02)
