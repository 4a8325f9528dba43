"""How parts of the network start."""

import pytest
import torch
from torch import Tensor

from lcm_distill.models.layers import ScalarEmbedder


@pytest.fixture
def embedder() -> ScalarEmbedder:
    torch.manual_seed(0)
    embedder = ScalarEmbedder(64)
    embedder.initialise_around(2.0)
    return embedder


def hidden(embedder: ScalarEmbedder) -> Tensor:
    """What the last layer sees at 1, 2 and 3."""
    seen = []
    embedder.mlp[2].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    embedder(torch.tensor([1.0, 2.0, 3.0]))
    return seen[0]


def test_embedding_starts_as_zero_for_every_value(embedder):
    assert not embedder(torch.linspace(1, 10, 8)).any()


def test_values_around_the_middle_start_far_apart(embedder):
    """Their sinusoids are not: those of 1 and 3 have a cosine of 0.96."""
    low, middle, high = hidden(embedder)
    assert middle.abs().max() < 1e-4 < 1 < low.std() < 10
    assert torch.cosine_similarity(low, high, dim=0) < 0.2
    embedder.mlp[0].bias.data.zero_()
    low, _, high = hidden(embedder)
    assert torch.cosine_similarity(low, high, dim=0) > 0.8
