"""The distribution-matching term in a training: who learns from it, and when."""

import pytest
import torch

from lcm_distill.models import read_tensors
from lcm_distill.models.networks import load_teacher, read_teacher
from lcm_distill.stages.distill import distill
from lcm_distill.training.critic import Matching
from lcm_distill.training.student import guided_from_teacher, prepare, student_from_teacher
from tests.training.test_student import differ, start

__all__ = ["start"]  # a fixture

MATCHED = ("distill.matching.weight=1", "distill.matching.start=0.5", "distill.steps=4")


@pytest.fixture
def parts(start):
    config, _ = start(*MATCHED, "distill.matching.guidance_share=1")
    student = student_from_teacher(config)
    critic = guided_from_teacher(config, read_teacher(config))
    matching = Matching(config, student, load_teacher(config), critic, torch.device("cpu"))
    captions, guidance = torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([2.0, 2, 2])
    return student, matching, lambda step: matching.loss(step, torch.arange(3).numpy(), captions, guidance)


def gradient(network) -> float:
    return sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None)


def test_critic_learns_alone_until_its_share_is_over(parts):
    student, matching, loss = parts
    loss(1).backward()
    assert gradient(student) == 0 and gradient(matching.critic) > 0
    with torch.no_grad():
        matching.critic.final_layer.linear.bias.add_(0.1)
    loss(2).backward()
    assert gradient(student) > 0


def test_critic_that_has_not_moved_tells_the_student_nothing(parts):
    student, matching, loss = parts
    loss(2).backward()  # in the middle of the range: what is told is how far the critic has come
    assert gradient(student) < 1e-6 * gradient(matching.critic)


def test_teacher_that_is_matched_keeps_a_share_of_its_guidance(start):
    """With half of it scale 3 is matched at 2, the middle of the range, where nothing is told yet; scale 2 is not."""
    config, _ = start(*MATCHED, "distill.matching.guidance_share=0.5")
    student, critic = student_from_teacher(config), guided_from_teacher(config, read_teacher(config))
    matching = Matching(config, student, load_teacher(config), critic, torch.device("cpu"))
    captions = torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0))
    told = []
    for scale in (3.0, 2.0):
        student.zero_grad()
        critic.zero_grad()
        matching.loss(2, torch.arange(3).numpy(), captions, torch.full((3,), scale)).backward()
        told.append(gradient(student) / gradient(critic))
    assert told[0] < 1e-6 < 1e-3 < told[1]


def test_critic_is_trained_beside_the_student_and_saved(start):
    config, run = start(*MATCHED, "distill.matching.critic_rate=2")
    training = prepare(config, run)
    begun = {name: tensor.clone() for name, tensor in training.modules["critic"].state_dict().items()}
    for report in training.run():
        if report.done == 2:
            break
    rates = [group["lr"] for group in training.optimiser.param_groups]
    assert rates[1] == 2 * rates[0] and differ(begun, training.modules["critic"].state_dict())
    again = prepare(config, run)  # goes on from the checkpoint of step 2
    list(again.run())
    whole_config, whole_run = start(*MATCHED, "distill.matching.critic_rate=2")
    whole = prepare(whole_config, whole_run)
    list(whole.run())
    for name in ("model", "average", "critic"):
        assert not differ(whole.modules[name].state_dict(), again.modules[name].state_dict())
    list(distill(config, run))
    assert not any(name.startswith("critic") for name in read_tensors(run.student))
