"""The term for the response to the guidance scale in a training: what it is zero for, when it is due, what it needs."""

import numpy as np
import pytest
import torch

from lcm_distill.diffusion.dpm_solver import follow_to_end
from lcm_distill.diffusion.objectives.guidance_response_loss import response_loss
from lcm_distill.diffusion.objectives.pairs import l2
from lcm_distill.models.networks import load_teacher
from lcm_distill.training.guidance_response_term import GuidanceTerm
from lcm_distill.training.observations import Observations
from lcm_distill.training.student import prepare
from lcm_distill.training.student_networks import student_from_teacher
from tests.diffusion.gaussian import column, noise
from tests.trainings import differ, start

__all__ = ["start"]  # a fixture

CPU = torch.device("cpu")
SIGMAS = (80.0, 10.0, 2.0, 0.5)
ANSWERING = ("distill.response.weight=1", "distill.response.every=2", "distill.steps=4")


def denoiser(std: float):
    """The exact denoiser of N(0, std^2)."""
    return lambda x, sigma: x * (std**2 / (std**2 + column(sigma, x) ** 2))


TEACHER = (denoiser(0.9), denoiser(0.4))
"""At a lower and at a higher scale."""


def ends(x, sigma):
    """What a student has to make of noisy samples at both scales."""
    return [follow_to_end(denoise, x, SIGMAS) for denoise in TEACHER]


def loss_of(student) -> torch.Tensor:
    return response_loss(student, TEACHER, 80 * noise(3), SIGMAS, l2)


def test_an_exact_guided_student_has_no_loss_whatever_it_has_in_common_at_both_scales():
    exact = tuple(lambda x, sigma, place=place: ends(x, sigma)[place] for place in (0, 1))
    shifted = tuple(lambda x, sigma, place=place: ends(x, sigma)[place] + 0.3 * x for place in (0, 1))
    assert loss_of(exact).max() == 0 and loss_of(shifted).max() < 1e-20


def test_a_student_that_ignores_its_scale_lacks_the_teachers_whole_difference():
    deaf = lambda x, sigma: ends(x, sigma)[0]  # noqa: E731
    lower, higher = ends(80 * noise(3), None)
    assert torch.allclose(loss_of((deaf, deaf)), l2(higher, lower))


def test_the_gradient_is_that_of_a_regression():
    """A factor on the difference is pulled towards 1 by twice its distance times the teacher's mean square."""
    factor = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    lower, higher = ends(80 * noise(3), None)
    loss_of((lambda x, sigma: lower, lambda x, sigma: lower + factor * (higher - lower))).sum().backward()
    assert factor.grad is not None
    assert factor.grad.item() == pytest.approx(2 * (0.25 - 1) * l2(higher, lower).sum().item(), rel=1e-9)


@pytest.fixture
def term(start):
    config, _ = start(*ANSWERING, "distill.steps=7", "distill.response.every=3")
    student = student_from_teacher(config.model, config.distill)
    return student, GuidanceTerm(
        config.distill, config.diffusion, 0, student, load_teacher(config.model), Observations(CPU), CPU
    )


def test_the_last_step_has_the_term_and_every_third_before(term):
    assert [step for step in range(7) if term[1].due(step)] == [0, 3, 6]


def test_half_of_the_steps_start_at_the_highest_noise_and_the_others_anywhere_but_at_the_end(term):
    sigmas = term[1].settings.response.sigmas
    starts = np.bincount([len(sigmas) - len(term[1].sigmas(step)) for step in range(2000)])
    assert len(starts) == len(sigmas) - 1
    assert starts[0] / 2000 == pytest.approx(0.5, abs=0.05)
    assert starts[1:] / 1000 == pytest.approx(1 / len(starts[1:]), abs=0.05)


def test_scales_are_the_lowest_and_one_of_the_upper_half(term):
    lower, higher = term[1].scales(0, np.arange(1000))
    assert (lower == 1).all() and higher.min() >= 2 and higher.max() <= 3
    assert higher.mean().item() == pytest.approx(2.5, abs=0.05)


def test_a_new_student_learns_to_answer_in_its_guidance_embedder(term):
    student, own = term
    captions = torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0))
    own.loss(0, np.arange(3), torch.randn(3, 8, 8, 8), captions).backward()
    assert student.cfg_embedder.mlp[2].weight.grad.abs().sum() > 0


def test_it_changes_the_student_and_resumes_to_the_same_bits(start):
    """Beside matching whose two draws of noise are one, in jumps without fresh noise."""
    settings = (
        *(f"distill.matching.{key}" for key in ("weight=1", "shared_noise=true", "guidance_less=0.5")),
        *("distill.fresh_noise=false", "distill.checkpoint_every=1", "distill.batch_size=4"),
        *ANSWERING,
    )
    config, run = start(*settings)
    for report in prepare(config, run).run():
        if report.done == 1:
            break
    resumed, unbroken, without = (
        prepare(*parts) for parts in ((config, run), start(*settings), start(*settings, "distill.response.weight=0"))
    )
    for trainer in (resumed, unbroken, without):
        list(trainer.run())
    for name in ("model", "average", "critic"):
        assert not differ(unbroken.modules[name].state_dict(), resumed.modules[name].state_dict())
    assert differ(without.modules["model"].state_dict(), unbroken.modules["model"].state_dict())


def test_a_sample_that_a_batch_holds_twice_has_random_numbers_of_its_own(start, monkeypatch):
    given = []

    def loss(self, step, addresses, *rest):
        given.extend(addresses.tolist())
        return torch.zeros(())

    monkeypatch.setattr(GuidanceTerm, "loss", loss)
    list(prepare(*start(*ANSWERING, "distill.response.every=1", "distill.steps=1", "distill.batch_size=64")).run())
    assert len(set(given)) == len(given) == 64 > len({address % 2**40 for address in given})
