"""Figures of a training's health by closed forms; a collapsed student is told, a healthy one is not."""

import math

import pytest
import torch

from lcm_distill.training.events import read_events
from lcm_distill.training.health import FIGURES, WINDOW, Health, health_figures
from lcm_distill.training.observations import Observations
from lcm_distill.training.student import prepare
from tests.trainings import differ, start

__all__ = ["start"]  # a fixture

HEALTHY = {
    "critic_error": 0.9, "diversity": 0.95, "logit_margin": 0.5, "objective_gradient": 0.4, "matching_gradient": 0.5,
    "response_gradient": 0.05, "adversarial_gradient": 0.05,
}  # fmt: skip
CPU = torch.device("cpu")


def said(figures: dict[str, float], steps: int = WINDOW) -> list[str]:
    """Everything that is said in so many equal steps."""
    health = Health("distill")
    return [line for step in range(steps) for line in health.check(step, {**HEALTHY, **figures})]


def spread(student: torch.Tensor, clean: torch.Tensor, passes: int = 1) -> dict[str, float]:
    """The figures of a step with these samples, in so many passes."""
    observed = Observations(CPU)
    for ours, theirs in zip(student.tensor_split(passes), clean.tensor_split(passes), strict=True):
        observed.spread("student_spread", ours)
        observed.spread("data_spread", theirs)
    return health_figures({name: float(value) for name, value in observed.take().items()}, len(student))


def test_diversity_is_the_ratio_of_the_standard_deviations_whatever_the_means():
    clean = torch.randn(64, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert spread(5 + 0.3 * clean, clean)["diversity"] == pytest.approx(0.3, rel=1e-5)
    assert spread(5 + 0.3 * clean, clean, passes=4)["diversity"] == pytest.approx(0.3, rel=1e-5)
    assert "diversity" not in spread(clean, clean, passes=64)  # a single sample says nothing


def test_a_collapsed_generator_is_caught_and_a_healthy_one_is_not():
    clean = torch.randn(64, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    other = torch.randn(64, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    collapsed = clean[:1] + 0.01 * other
    assert said(spread(other, clean)) == []
    (line,) = said(spread(collapsed, clean))
    assert "differ by 0.01 of what the data does" in line and "distill.matching.guidance_share" in line
    (line,) = said(spread(3 * other, clean))
    assert "turn to noise" in line


@pytest.mark.parametrize(
    ("figures", "remedy"),
    [
        ({"critic_error": 5.0}, "raise distill.matching.critic_rate or distill.matching.start"),
        ({"logit_margin": 9.0}, "lower distill.adversarial.discriminator_rate"),
        ({"matching_gradient": 0.97}, "lower distill.matching.weight"),
        ({"adversarial_gradient": 0.97}, "lower distill.adversarial.weight"),
        ({"response_gradient": 0.97}, "lower distill.response.weight"),
        ({"objective_gradient": 0.97}, "raise the weights of the others"),
    ],
)
def test_each_kind_is_said_once_with_what_helps(figures, remedy):
    (line,) = said(figures, 4 * WINDOW)
    assert remedy in line and line.startswith("distill: ") and f"up to step {WINDOW - 1})" in line


def test_single_steps_say_nothing():
    health = Health("distill")
    lost = {**HEALTHY, "diversity": 0.1}
    assert [line for step in range(1000) for line in health.check(step, HEALTHY if step % 4 else lost)] == []


def test_a_critic_that_the_student_does_not_follow_yet_is_not_judged():
    alone = {name: value for name, value in HEALTHY.items() if name != "matching_gradient"} | {"critic_error": 9.0}
    health = Health("distill")
    assert [line for step in range(100) for line in health.check(step, alone)] == []


def test_a_critic_that_predicts_the_samples_has_no_error_and_one_like_the_teacher_has_its_error():
    assert health_figures({"critic_error": 0.0, "teacher_error": 3.0}, 4) == {"critic_error": 0}
    assert health_figures({"critic_error": 3.0, "teacher_error": 3.0}, 4) == {"critic_error": 1}


def test_what_cannot_be_told_is_left_out():
    assert health_figures({}, 4) == {}
    assert health_figures({"objective_gradient": 4.0}, 4) == {}  # of one term alone
    assert health_figures({"critic_error": math.inf, "teacher_error": 1.0, "logit_margin": 8.0}, 4) == {
        "logit_margin": 2
    }
    assert HEALTHY.keys() == set(FIGURES)


def test_shares_are_of_the_gradients_norms_in_one_output():
    """Of 3 x and 4 x, squared and halved at 1: gradients of 9 and 16 in each of the values, in any number of passes."""
    observed = Observations(CPU)
    for _ in range(2):
        output = torch.ones(2, 1, 2, 2, requires_grad=True)
        terms = [
            (scale * observed.gradient(name, output)).square().sum() / 2
            for name, scale in [("objective", 3), ("matching", 4)]
        ]
        torch.stack(terms).sum().backward()
        assert output.grad is not None and torch.equal(output.grad, torch.full_like(output, 25))
    sums = {name: float(value) for name, value in observed.take().items()}
    assert sums == {"objective_gradient": 2 * 8 * 81, "matching_gradient": 2 * 8 * 256}
    figures = health_figures(sums, 4)
    assert figures == pytest.approx({"objective_gradient": 9 / 25, "matching_gradient": 16 / 25})
    assert observed.take() == {}


ALL_TERMS = (
    "distill.steps=4", "distill.matching.weight=1", "distill.matching.start=0.5", "distill.adversarial.weight=0.1",
    "distill.adversarial.start=0.5", "distill.response.weight=1", "distill.response.every=2", "engine.micro_batch=4",
)  # fmt: skip


def test_what_is_observed_changes_no_weight_and_is_recorded(start, monkeypatch):
    config, run = start(*ALL_TERMS)
    observing = prepare(config, run)
    list(observing.run())
    rows = [row for path in sorted((run.distill / "events").iterdir()) for row in read_events(path)]
    assert len(rows) == 4 and all(row["critic_error"] > 0 and row["diversity"] > 0 for row in rows)
    shares = [
        {name: row[name] for name in FIGURES if name.endswith("_gradient") and row[name] is not None} for row in rows
    ]
    names = {"objective_gradient", "matching_gradient", "adversarial_gradient", "response_gradient"}
    assert [set(share) for share in shares] == [
        set(),
        {"objective_gradient", "response_gradient"},
        names - {"response_gradient"},
        names,
    ]
    assert all(sum(share.values()) == pytest.approx(1) and min(share.values()) > 0 for share in shares[1:])
    monkeypatch.setattr(Observations, "gradient", lambda self, term, output: output)
    monkeypatch.setattr(Observations, "add", lambda self, name, value: None)
    blind = prepare(*start(*ALL_TERMS))
    list(blind.run())
    assert blind.observed() == {}
    for name in observing.modules:
        assert not differ(observing.modules[name].state_dict(), blind.modules[name].state_dict())


def test_a_warning_is_printed_and_logged(caplog):
    health = Health("distill")
    with pytest.warns(
        UserWarning, match="distill: the critic denoises .* raise distill.matching.critic_rate"
    ) as caught:
        for step in range(2 * WINDOW):
            health.warn(step, {**HEALTHY, "critic_error": 3.0})
    assert len(caught) == 1 == len(caplog.records)
