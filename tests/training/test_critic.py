"""The distribution-matching term in a training: which network learns from it, and when."""

import pytest
import torch

from lcm_distill.config import Config
from lcm_distill.models import MicroDiT, read_tensors
from lcm_distill.models.networks import load_teacher, read_teacher
from lcm_distill.stages.distill import distill
from lcm_distill.training.critic import DistributionMatching
from lcm_distill.training.student import prepare
from lcm_distill.training.student_networks import guided_from_teacher, student_from_teacher
from tests.trainings import differ, start

__all__ = ["start"]  # a fixture

MATCHED = ("distill.matching.weight=1", "distill.matching.start=0.5", "distill.steps=4")
LATENTS = (8, 8, 8)


def networks_of(config: Config) -> tuple[MicroDiT, MicroDiT, DistributionMatching]:
    """Student, critic and the matching term between them."""
    student = student_from_teacher(config.model, config.distill)
    critic = guided_from_teacher(config.model, read_teacher(config.model), config.distill.middle_guidance)
    matching = DistributionMatching(
        config.distill, config.diffusion, 0, student, load_teacher(config.model), critic, torch.device("cpu")
    )
    return student, critic, matching


def loss_of(matching: DistributionMatching, step: int, scale: float) -> torch.Tensor:
    captions = torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0))
    return matching.loss(step, torch.arange(3).numpy(), captions, torch.full((3,), scale), LATENTS)


@pytest.fixture
def parts(start):
    config, _ = start(*MATCHED, "distill.matching.guidance_share=1")
    return networks_of(config)


def gradient(network) -> float:
    return sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None)


def test_only_the_critic_learns_at_the_start(parts):
    student, critic, matching = parts
    loss_of(matching, 1, 2.0).backward()
    assert gradient(student) == 0 and gradient(critic) > 0
    with torch.no_grad():
        critic.final_layer.linear.bias.add_(0.1)
    loss_of(matching, 2, 2.0).backward()
    assert gradient(student) > 0


def test_a_critic_that_has_not_moved_gives_the_student_no_gradient(parts):
    student, critic, matching = parts
    loss_of(matching, 2, 2.0).backward()  # at the middle of the range, the scores differ by what the critic has learnt
    assert gradient(student) < 1e-6 * gradient(critic)


def test_the_real_score_keeps_a_share_of_its_guidance(start):
    """With half of it, scale 3 is scored at 2, the middle of the range, where the scores are equal; scale 2 is not."""
    config, _ = start(*MATCHED, "distill.matching.guidance_share=0.5")
    student, critic, matching = networks_of(config)
    ratios = []
    for scale in (3.0, 2.0):
        student.zero_grad()
        critic.zero_grad()
        loss_of(matching, 2, scale).backward()
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
