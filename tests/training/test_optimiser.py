"""Networks that learn at a rate of their own."""

import pytest
import torch
from torch import nn

from lcm_distill.config import OptimiserConfig, load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.training.optimiser import build_optimiser, set_learning_rate


@pytest.fixture
def settings() -> OptimiserConfig:
    return load_preset("shapes", ["distill.weight_decay=0"]).distill


def test_each_network_takes_its_share_of_the_rate(settings):
    """Adam's first step moves every weight by the learning rate itself."""
    networks = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    optimiser = build_optimiser({networks[0]: 1.0, networks[1]: 4.0}, settings)
    before = [parameter.detach().clone() for parameter in networks.parameters()]
    set_learning_rate(optimiser, 1e-3)
    networks(torch.randn(8, 2, generator=torch.Generator().manual_seed(0))).sum().backward()
    optimiser.step()
    moved = [(now - was).abs().max().item() for now, was in zip(networks.parameters(), before, strict=True)]
    assert moved == pytest.approx([1e-3, 1e-3, 4e-3, 4e-3], rel=1e-3)


def test_moments_in_8_bit_without_torchao_are_refused(settings, monkeypatch):
    monkeypatch.setattr("lcm_distill.training.optimiser.find_spec", lambda name: None)
    eight = settings.model_copy(update={"moments": "8bit"})
    with pytest.raises(UserError, match=r"moments = '8bit' needs torchao: pip install 'lcm-distill\[eightbit\]'"):
        build_optimiser({nn.Linear(2, 2): 1.0}, eight)
