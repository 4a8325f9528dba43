"""The derivative along a trajectory that continuous-time distillation takes through MicroDiT."""

from contextlib import ExitStack

import pytest
import torch

from lcm_distill.diffusion.objectives.scm import value_and_derivative
from lcm_distill.diffusion.preconditioning import consistency_function
from lcm_distill.models import build
from lcm_distill.models.experts import ExpertChoice
from tests.tensors import name_seeded, random_doubles


@pytest.fixture(scope="module")
def student():
    with torch.no_grad():
        network = name_seeded(build("MicroDiT_Nano_2", 8, 64, in_channels=8, guidance_embedding=True))
    return network.double()


def routing(network, work) -> list[torch.Tensor]:
    """The tokens every expert of every layer takes while `work` runs."""
    chosen = []

    def note(layer, arguments):
        taken = int(layer.capacity * arguments[0].shape[1] / layer.experts)
        chosen.append(layer.gate(arguments[0]).transpose(1, 2).softmax(1).topk(taken, dim=-1).indices)

    with ExitStack() as hooks:
        for layer in network.modules():
            if isinstance(layer, ExpertChoice):
                hooks.callback(layer.register_forward_pre_hook(note).remove)
        work()
    return chosen


@pytest.mark.parametrize("first", [0.01, 0.5, 5.0, 80.0])
def test_derivative_is_that_of_central_differences_where_routing_stays(student, first):
    captions, guidance = random_doubles(1, 2, 5, 64), torch.tensor([1.0, 3.0], dtype=torch.float64)
    jump = consistency_function(student, 0.9, 0.002, captions, guidance)
    sigma = torch.tensor([first, 1.5 * first], dtype=torch.float64)
    x = 0.9 * random_doubles(2, 2, 8, 8, 8) + sigma.view(-1, 1, 1, 1) * random_doubles(3, 2, 8, 8, 8)
    rate = sigma.view(-1, 1, 1, 1) * random_doubles(4, 2, 8, 8, 8)
    value, derivative = value_and_derivative(jump, x, sigma, rate, sigma)
    step, predictions, routings = 1e-5, [], []
    for sign in (1, 0, -1):
        moved = (x + sign * step * rate, sigma + sign * step * sigma)
        with torch.no_grad():
            routings.append(routing(student, lambda moved=moved: predictions.append(jump(*moved))))
    assert len(routings[0]) > 1
    assert all(
        torch.equal(one, other) for side in (0, 2) for one, other in zip(routings[side], routings[1], strict=True)
    )
    difference = (predictions[0] - predictions[2]) / (2 * step)
    assert torch.allclose(value, predictions[1], rtol=1e-9, atol=1e-12)
    assert ((derivative - difference).norm() / difference.norm()).item() < 1e-6
    assert not value.requires_grad and not derivative.requires_grad
