"""Adversarial losses where their values and gradients are known."""

import pytest
import torch

from lcm_distill.diffusion.objectives.adversarial import discriminator_loss, generator_loss, with_gradient


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [([0.0, 0.0], [0.0, 0.0], 2.0), ([1.0, 5.0], [-1.0, -2.0], 0.0), ([2.0, 0.5], [0.0, -3.0], 0.25 + 0.5)],
)
def test_hinge(real, fake, expected):
    assert discriminator_loss(torch.tensor([real]), torch.tensor([fake])).tolist() == [expected]


def test_the_student_wants_high_logits():
    logits = torch.tensor([[1.0, 3.0], [-1.0, 0.0]], requires_grad=True)
    losses = generator_loss(logits)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.tolist() == [-2.0, 0.5] and gradient.tolist() == [[-0.5, -0.5]] * 2


def test_a_given_gradient_is_the_only_one():
    source = torch.randn(2, 1, 2, 2, requires_grad=True)
    losses, gradient = torch.tensor([3.0, -1.0], requires_grad=True), torch.randn(2, 1, 2, 2)
    result = with_gradient(losses, 2 * source, gradient)
    assert result.tolist() == losses.tolist()
    found, none = torch.autograd.grad(result.sum(), (source, losses), allow_unused=True)
    assert torch.allclose(found, 2 * gradient) and none is None


def test_the_best_discriminator_of_equal_gaussians_gives_no_gradient_and_of_others_points_to_the_data():
    """A logit that is linear in the sample, with its best weight: zero where the means are equal."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(4000, 1, generator=generator)
    for shift, direction in ((0.0, 0), (2.0, 1), (-2.0, -1)):
        fake = torch.randn(4000, 1, generator=generator) - shift
        weight, bias = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        optimiser = torch.optim.SGD([weight, bias], 0.1)
        for _ in range(300):
            optimiser.zero_grad()
            discriminator_loss(data * weight + bias, fake * weight + bias).mean().backward()
            optimiser.step()
        sample = fake.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(generator_loss(sample * weight + bias).sum(), sample)
        descent = -gradient.mean().item()
        assert abs(descent) < 0.05 if direction == 0 else descent * direction > 0.3
