"""The distribution-matching term in a training: which network learns from it, and when."""

from typing import NamedTuple

import pytest
import torch

from lcm_distill.config import Config
from lcm_distill.models import MicroDiT, read_tensors
from lcm_distill.models.networks import load_teacher, read_teacher
from lcm_distill.stages.distill import distill
from lcm_distill.training.critic import DistributionMatching
from lcm_distill.training.events import read_events
from lcm_distill.training.loss import total
from lcm_distill.training.observations import Observations
from lcm_distill.training.student import prepare
from lcm_distill.training.student_networks import guided_from_teacher, student_from_teacher
from lcm_distill.training.student_samples import StudentSamples
from tests.trainings import differ, start

__all__ = ["start"]  # a fixture

MATCHED = ("distill.matching.weight=1", "distill.matching.start=0.5", "distill.steps=4")
LATENTS = (8, 8, 8)


class Parts(NamedTuple):
    """Student and critic, and the matching term between them."""

    student: MicroDiT
    critic: MicroDiT
    samples: StudentSamples
    matching: DistributionMatching

    def loss(self, step: int, scale: float) -> torch.Tensor:
        captions = torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0))
        addresses, guidance = torch.arange(3).numpy(), torch.full((3,), scale)
        samples = self.samples.generate(step, addresses, captions, guidance, LATENTS)
        return total(self.matching.losses(step, addresses, captions, guidance, samples))


def parts_of(config: Config) -> Parts:
    student = student_from_teacher(config.model, config.distill)
    critic = guided_from_teacher(config.model, read_teacher(config.model), config.distill.middle_guidance)
    common, device = (config.distill, config.diffusion, 0), torch.device("cpu")
    observed = Observations(device)
    samples = StudentSamples(*common, student, device)
    matching = DistributionMatching(*common, load_teacher(config.model), critic, observed, device)
    return Parts(student, critic, samples, matching)


@pytest.fixture
def parts(start):
    config, _ = start(*MATCHED, "distill.matching.guidance_share=1")
    return parts_of(config)


def gradient(network) -> float:
    return sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None)


def test_only_the_critic_learns_at_the_start(parts):
    student, critic = parts[:2]
    parts.loss(1, 2.0).backward()
    assert gradient(student) == 0 and gradient(critic) > 0
    with torch.no_grad():
        critic.final_layer.linear.bias.add_(0.1)
    parts.loss(2, 2.0).backward()
    assert gradient(student) > 0


def test_a_critic_that_has_not_moved_gives_the_student_no_gradient(parts):
    student, critic = parts[:2]
    parts.loss(2, 2.0).backward()  # at the middle of the range, the scores differ by what the critic has learnt
    assert gradient(student) < 1e-6 * gradient(critic)


def test_the_real_score_keeps_a_share_of_its_guidance(start):
    """With half of it, scale 3 is scored at 2, the middle of the range, where the scores are equal; scale 2 is not."""
    config, _ = start(*MATCHED, "distill.matching.guidance_share=0.5")
    student, critic = (parts := parts_of(config))[:2]
    ratios = []
    for scale in (3.0, 2.0):
        student.zero_grad()
        critic.zero_grad()
        parts.loss(2, scale).backward()
        ratios.append(gradient(student) / gradient(critic))
    assert ratios[0] < 1e-6 < 1e-3 < ratios[1]


def test_the_critic_is_trained_beside_the_student_and_saved(start):
    config, run = start(*MATCHED, "distill.matching.critic_rate=2")
    trainer = prepare(config, run)
    initial = {name: tensor.clone() for name, tensor in trainer.modules["critic"].state_dict().items()}
    for report in trainer.run():
        if report.done == 2:
            break
    rates = [group["lr"] for group in trainer.optimiser.param_groups]
    assert rates[1] == 2 * rates[0] and differ(initial, trainer.modules["critic"].state_dict())
    resumed = prepare(config, run)  # from the checkpoint of step 2
    list(resumed.run())
    unbroken = prepare(*start(*MATCHED, "distill.matching.critic_rate=2"))
    list(unbroken.run())
    for name in ("model", "average", "critic"):
        assert not differ(unbroken.modules[name].state_dict(), resumed.modules[name].state_dict())
    list(distill(config, run))
    assert not any(name.startswith("critic") for name in read_tensors(run.student))


def test_one_noise_for_critic_and_matching_asks_the_teacher_once_and_is_the_same_to_rounding(start, monkeypatch):
    losses, gradients, calls = [], [], []
    for shared in ("false", "true"):
        config, _ = start(*MATCHED, f"distill.matching.shared_noise={shared}")
        torch.manual_seed(0)  # of the guidance embedders' first layers
        student, critic, _, matching = parts = parts_of(config)
        with torch.no_grad():
            critic.final_layer.linear.bias.add_(0.1)
        teacher, asked = matching.teacher, []
        monkeypatch.setattr(
            matching, "teacher", lambda *inputs, teacher=teacher, asked=asked: asked.append(1) or teacher(*inputs)
        )
        drawn = matching._noise_and_sigma
        monkeypatch.setattr(matching, "_noise_and_sigma", lambda _, *where, drawn=drawn: drawn("critic", *where))
        loss = parts.loss(2, 2.0)
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad for network in (student, critic) for p in network.parameters() if p.grad is not None])
        calls.append(len(asked))
    assert calls == [2, 1] and losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in zip(*gradients, strict=True))


def test_guidance_is_taken_off_down_to_none(start):
    """With all of its guidance less a half, 1.2 is scored at 1: as at 1 itself."""
    captured = []

    def scores(teacher, fake, real_guidance, assumed_guidance):
        captured.append(real_guidance)
        raise StopIteration

    config, _ = start(*MATCHED, "distill.matching.guidance_share=1", "distill.matching.guidance_less=0.5")
    guidance, samples = torch.tensor([1.0, 1.2, 3.0]), torch.zeros(3, *LATENTS)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr("lcm_distill.training.critic.real_and_fake_scores", scores)
        parts_of(config).matching.losses(2, torch.arange(3).numpy(), torch.zeros(3, 16, 64), guidance, samples)
    assert captured[0].tolist() == [1.0, 1.0, 2.5]


def test_every_step_records_the_terms_of_its_loss(start):
    config, run = start(*MATCHED, "distill.response.weight=1", "distill.response.every=2", "distill.steps=4")
    list(prepare(config, run).run())
    rows = [row for path in sorted((run.distill / "events").iterdir()) for row in read_events(path)]
    for step, row in enumerate(rows):
        terms = {name: value for name, value in row.items() if name.endswith("_loss") and value is not None}
        had = {"objective_loss", "critic_loss"}
        had |= {"matching_loss"} if config.distill.matching.begun(step, 4) else set()
        had |= {"response_loss"} if config.distill.response.due(step, 4) else set()
        assert terms.keys() == had
        assert sum(terms.values()) == pytest.approx(row["loss"], rel=1e-6)
    assert len(rows) == 4 and len({frozenset(name for name in row if row[name] is not None) for row in rows}) > 1


def test_a_loss_of_one_term_is_recorded_once(start):
    config, run = start("distill.matching.weight=0", "distill.adversarial.weight=0", "distill.steps=1")
    list(prepare(config, run).run())
    (path,) = (run.distill / "events").iterdir()
    (row,) = read_events(path)
    assert row["loss"] > 0 and row["objective_loss"] is None and row["critic_loss"] is None
