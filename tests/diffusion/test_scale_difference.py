"""Differences between guidance scales on Gaussian data, where a scale stands for a standard deviation."""

import pytest
import torch

from lcm_distill.diffusion.dpm_solver import follow_to_end
from lcm_distill.diffusion.few_step_samplers import Consistency, Deterministic, Phased
from lcm_distill.diffusion.preconditioning import jump_to
from lcm_distill.diffusion.samplers import Heun
from lcm_distill.diffusion.scale_difference import scale_difference, trajectory_point
from lcm_distill.metrics.guidance_response_metrics import guidance_response
from tests.diffusion.gaussian import SIGMA_MAX, SIGMA_MIN, column, noise

STD = {1.0: 0.9, 3.0: 0.4}
SIGMAS = (80.0, 8.0, 2.0, 0.5)


def denoiser(scale: float):
    """The exact denoiser of N(0, std^2)."""
    return lambda x, sigma: x * (STD[scale] ** 2 / (STD[scale] ** 2 + column(sigma, x) ** 2))


def jump(scale: float):
    """The exact consistency function of that denoiser."""

    def exact(x, sigma):
        return x * ((STD[scale] ** 2 + SIGMA_MIN**2) / (STD[scale] ** 2 + column(sigma, x) ** 2)).sqrt()

    return exact


def fresh(step: int) -> torch.Tensor:
    return noise(4, seed=step)


def response(function, sampler, start: float):
    point = trajectory_point(denoiser(1.0), fresh(0), SIGMA_MAX, start, 64)
    teacher = scale_difference(denoiser, Heun(64, SIGMA_MIN, start), point, fresh, (1.0, 3.0))
    return guidance_response(scale_difference(function, sampler.started_at(start), point, fresh, (1.0, 3.0)), teacher)


@pytest.mark.parametrize("start", [80.0, 10.0, 2.0])
def test_an_exact_student_answers_as_its_teacher_from_everywhere(start):
    assert response(jump, Consistency((80.0,)), start) == pytest.approx((1, 1, 1), abs=5e-3)


@pytest.mark.parametrize("sampler", [Consistency(SIGMAS), Deterministic(SIGMAS), Phased(SIGMAS)])
def test_a_student_that_ignores_its_scale_does_not_answer(sampler):
    assert response(lambda scale: jump(1.0), sampler, 10.0) == (0, 0, 0)


def test_fresh_noise_hides_the_answer_of_an_exact_student_and_jumps_without_it_do_not():
    fresh_noise, none = (response(jump, sampler(SIGMAS), 80.0) for sampler in (Consistency, Deterministic))
    assert fresh_noise.cosine < 0.5 < 0.999 < none.cosine


def test_a_trajectory_is_followed_to_its_point():
    expected = fresh(0) * 80 * ((0.81 + 4) / (0.81 + 6400)) ** 0.5
    assert torch.allclose(trajectory_point(denoiser(1.0), fresh(0), 80.0, 2.0, 64), expected, rtol=1e-3)
    assert torch.equal(trajectory_point(denoiser(1.0), fresh(0), 80.0, 80.0, 64), 80 * fresh(0))


def test_samplers_start_at_a_point_and_keep_the_steps_below():
    assert Consistency(SIGMAS).started_at(10.0) == Consistency((10.0, 8.0, 2.0, 0.5))
    assert Deterministic(SIGMAS).started_at(2.0) == Deterministic((2.0, 0.5))
    assert Phased(SIGMAS).started_at(80.0) == Phased(SIGMAS)


def test_jumps_without_fresh_noise_go_down_the_line_to_where_they_lead():
    function = jump(1.0)
    x = function(80 * fresh(0), torch.tensor([80.0]))
    half_way = jump_to(function, 80 * fresh(0), torch.tensor([80.0]), torch.tensor([2.0]), SIGMA_MIN)
    assert torch.allclose(half_way, x + (2 - SIGMA_MIN) / (80 - SIGMA_MIN) * (80 * fresh(0) - x))
    sampled = Deterministic((80.0, 2.0), SIGMA_MIN)(function, fresh)
    assert torch.allclose(sampled, function(half_way, torch.tensor([2.0])), rtol=1e-6)


def test_multistep_solver_follows_the_trajectory_to_its_end():
    end = 80 * fresh(0) * (0.81 / (0.81 + 6400)) ** 0.5
    few = follow_to_end(denoiser(1.0), 80 * fresh(0), (80.0, 10.0, 5.0, 2.5, 1.2, 0.5))
    assert torch.allclose(few, end, rtol=0.25)
    sigmas = [80 * 0.8**step for step in range(60)]
    assert torch.allclose(follow_to_end(denoiser(1.0), 80 * fresh(0), sigmas), end, rtol=5e-3)


def test_multistep_solver_is_exact_where_the_denoised_sample_is_linear_in_the_logarithm_of_sigma():
    """x' = (x - D) / sigma with D = a + b ln sigma has the solution a + b (ln sigma + 1) + c sigma; its first step is
    of first order."""
    a, b = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)

    def linear(x, sigma):
        return (a + b * column(sigma, x).log()).expand_as(x)

    x, sigmas = fresh(0), [4.0, 2.0, 1.0]
    first = 0.5 * x + 0.5 * linear(x, torch.tensor([4.0]))
    ahead = 1.5 * linear(x, torch.tensor([2.0])) - 0.5 * linear(x, torch.tensor([4.0]))
    second = 0.5 * first + 0.5 * ahead
    seen = []
    follow_to_end(lambda x, sigma: seen.append(x) or linear(x, sigma), x, sigmas)
    assert torch.allclose(seen[1], first, rtol=1e-6) and torch.allclose(seen[2], second, rtol=1e-6)
