"""Parts of a network that learn at a rate of their own."""

import pytest
import torch
from torch import nn

from lcm_distill.config import OptimiserConfig, load_preset
from lcm_distill.errors import UserError
from lcm_distill.stages.engine.optimiser import build_optimiser, set_rate


@pytest.fixture
def settings() -> OptimiserConfig:
    return load_preset("shapes", ["distill.weight_decay=0"]).distill


def test_each_part_takes_its_multiple_of_the_rate(settings):
    """Adam's first step moves every weight by the learning rate itself."""
    whole, other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), nn.Linear(4, 1)
    networks = nn.Sequential(whole, other)
    optimiser = build_optimiser({whole: 1.0, other: 0.5, whole[1]: 5.0}, settings)
    before = [parameter.detach().clone() for parameter in networks.parameters()]
    set_rate(optimiser, 1e-3)
    networks(torch.randn(8, 2, generator=torch.Generator().manual_seed(0))).sum().backward()
    optimiser.step()
    moved = [(now - was).abs().max().item() for now, was in zip(networks.parameters(), before, strict=True)]
    assert moved == pytest.approx([1e-3, 1e-3, 5e-3, 5e-3, 5e-4, 5e-4], rel=1e-3)


def test_no_parameter_is_in_two_groups_or_in_none(settings):
    whole = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    groups = build_optimiser({whole: 1.0, whole[1]: 5.0}, settings).param_groups
    held = [parameter for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held)) == len(list(whole.parameters()))


def test_moments_in_8_bit_without_torchao_are_refused(settings, monkeypatch):
    monkeypatch.setattr("lcm_distill.stages.engine.optimiser.find_spec", lambda name: None)
    eight = settings.model_copy(update={"moments": "8bit"})
    with pytest.raises(UserError, match=r"moments = '8bit' needs torchao: pip install 'lcm-distill\[eightbit\]'"):
        build_optimiser({nn.Linear(2, 2): 1.0}, eight)
