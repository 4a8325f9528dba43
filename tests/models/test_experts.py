"""Gather and scatter-add compute what the one-hot products of the reference compute."""

import torch
from benchmarks.one_hot import one_hot_experts

from lcm_distill.models.experts import ExpertChoice


def test_equals_one_hot_form_with_gradients():
    torch.manual_seed(0)
    layer = ExpertChoice(dim=12, hidden=20, multiple_of=4, experts=4, capacity=2.0).double()
    layer.initialise(0.5)
    x = torch.randn(3, 16, 12, dtype=torch.float64, requires_grad=True)
    results = []
    for form in (layer, lambda tokens: one_hot_experts(layer, tokens)):
        layer.zero_grad()
        x.grad = None
        out = form(x)
        out.square().sum().backward()
        gradients = [weight.grad for weight in (layer.w1, layer.w2, layer.gate.weight)]
        results.append([out, x.grad, *(gradient.clone() for gradient in gradients if gradient is not None)])
        assert len(results[-1]) == 5
    for mine, reference in zip(*results, strict=True):
        assert torch.allclose(mine, reference, rtol=1e-10, atol=1e-14)


def test_token_no_expert_wants_comes_back_as_zero():
    layer = ExpertChoice(dim=4, hidden=8, multiple_of=4, experts=2, capacity=0.5).double()
    layer.initialise(0.5)
    torch.nn.init.zeros_(layer.gate.weight)
    layer.gate.weight.data[:, 0] = torch.tensor([5.0, -5.0])  # one expert likes large, the other small first entries
    x = torch.randn(1, 8, 4, dtype=torch.float64)
    x[0, :, 0] = torch.arange(8) - 3.5
    out = layer(x)
    assert (out[0].abs().sum(-1) > 0).tolist() == [True, True, False, False, False, False, True, True]
