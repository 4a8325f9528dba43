"""The adversarial term in a training: what learns from it, when, and that it resumes."""

import pytest
import torch
from torch import nn

from lcm_distill.models import read_tensors
from lcm_distill.models.discriminator import blocks_with_heads
from lcm_distill.stages.distill import distill
from lcm_distill.training.loss import total
from lcm_distill.training.student import prepare
from lcm_distill.training.student_networks import student_from_teacher
from tests.trainings import differ, start

__all__ = ["start"]  # a fixture

ADVERSARIAL = (
    "distill.matching.weight=1", "distill.matching.start=0.5", "distill.adversarial.weight=0.1",
    "distill.adversarial.start=0.5", "distill.steps=4",
)  # fmt: skip


def gradients(trainer, step):
    """Summed absolute gradients of a step's adversarial terms, by network."""
    terms = trainer.loss(step, trainer.batches[step])
    for parameter in trainer.optimiser.param_groups:
        for tensor in parameter["params"]:
            tensor.grad = None
    total({name: terms[name] for name in ("discriminator_loss", "adversarial_loss") if name in terms}).backward()
    return {
        name: sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None)
        for name, network in trainer.trained.items()
    }


def test_the_student_learns_from_the_term_once_it_has_begun_and_the_discriminator_before(start):
    trainer = prepare(*start(*ADVERSARIAL))
    before, after = (gradients(trainer, step) for step in (1, 2))
    assert before["model"] == 0 < before["discriminator"]
    assert after["model"] > 0 and after["critic"] == 0


def test_the_discriminator_does_not_learn_from_the_student_s_loss(start):
    """Its gradient is that of its own loss: without a weight on the student's, the same."""
    found = []
    for weight in (0.1, 1000):
        trainer = prepare(*start(*ADVERSARIAL, f"distill.adversarial.weight={weight}"))
        gradients(trainer, 2)
        found.append([parameter.grad for parameter in trainer.trained["discriminator"].parameters()])
    assert found[0] and all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_it_resumes_to_the_same_bits_and_the_discriminator_is_not_published(start):
    config, run = start(*ADVERSARIAL)
    for report in prepare(config, run).run():
        if report.done == 2:
            break
    resumed, unbroken = prepare(config, run), prepare(*start(*ADVERSARIAL))
    for trainer in (resumed, unbroken):
        list(trainer.run())
    for name in ("model", "average", "critic", "discriminator"):
        assert not differ(unbroken.modules[name].state_dict(), resumed.modules[name].state_dict())
    rates = [group["lr"] for group in unbroken.optimiser.param_groups]
    assert rates[2] == pytest.approx(50 * rates[0])
    list(distill(config, run))
    assert not any("heads" in name for name in read_tensors(run.student))


def test_the_heads_stand_in_even_intervals_and_at_the_end(start):
    network = student_from_teacher((config := start()[0]).model, config.distill)
    assert blocks_with_heads(network) == list(network.blocks)  # four blocks
    network.blocks = nn.ModuleList(nn.Identity() for _ in range(28))
    assert [list(network.blocks).index(block) for block in blocks_with_heads(network)] == [6, 13, 20, 27]


def test_it_needs_no_distribution_matching(start):
    trainer = prepare(*start(*ADVERSARIAL, "distill.matching.weight=0"))
    assert set(trainer.loss(3, trainer.batches[3])) == {"objective_loss", "discriminator_loss", "adversarial_loss"}
    after = gradients(trainer, 2)
    assert set(after) == {"model", "discriminator"} and min(after.values()) > 0
