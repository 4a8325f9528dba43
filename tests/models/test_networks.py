"""Networks of a training start from the teacher's file, which is read once, and nothing is initialised in vain."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lcm_distill.config import load_preset
from lcm_distill.models import networks
from lcm_distill.training.objective_registry import build_objective
from lcm_distill.training.student import prepare
from lcm_distill.training.student_networks import build_networks
from tests.trainings import start

__all__ = ["start"]  # a fixture


class RandomNumbers(TorchDispatchMode):
    """How many random numbers are made, but for tensors without memory."""

    def __init__(self):
        super().__init__()
        self.made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name.removeprefix("aten::") in ("normal_", "uniform_", "trunc_normal_") and not args[0].is_meta:
            self.made += args[0].numel()
        return func(*args, **(kwargs or {}))


def test_the_teachers_file_is_read_once(start, monkeypatch):
    read, paths = networks.read_teacher_tensors, []
    monkeypatch.setattr(networks, "read_teacher_tensors", lambda path, device: paths.append(path) or read(path, device))
    prepare(*start("distill.matching.weight=1"))
    assert len(paths) == 1


def test_guidance_embedders_alone_are_initialised():
    config = load_preset("shapes")
    weights = networks.read_teacher(config.model)
    with RandomNumbers() as numbers:
        objective = build_objective(config.distill, config.diffusion)
        built = build_networks(config.model, config.distill, config.distill_seed, objective, weights)
    assert built.student.cfg_embedder is not None
    embedder = sum(parameter.numel() for parameter in built.student.cfg_embedder.parameters())
    assert 0 < numbers.made <= 2 * 3 * embedder  # student and critic, some of their values more than once


@pytest.mark.parametrize("name", ["student", "target", "average", "critic", "discriminator"])
def test_networks_change_by_themselves(name):
    config = load_preset("shapes")
    objective, weights = build_objective(config.distill, config.diffusion), networks.read_teacher(config.model)
    built = build_networks(config.model, config.distill, config.distill_seed, objective, weights)
    changed = getattr(built, name)
    others = [network for network in built if network is not None and network is not changed]
    assert len(others) == 5
    before = [{key: value.clone() for key, value in network.state_dict().items()} for network in others]
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(1)
    for network, old in zip(others, before, strict=True):
        assert all(torch.equal(value, old[key]) for key, value in network.state_dict().items())
