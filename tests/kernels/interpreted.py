"""Fused kernels against plain PyTorch, values and gradients; `test_transformer` runs it in Triton's interpreter."""

import copy
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from lcm_distill.kernels import activations, experts, heads, residual
from lcm_distill.kernels.operators import assume_fused
from lcm_distill.models import MicroDiT
from lcm_distill.models.variants import VARIANTS
from lcm_distill.training.engine.blocks import checkpoint_activations, transformer_blocks
from tests.tensors import random_tensor, randomise, relative

# Triton 3.6 turns arrays of one number into numbers, of which a newer NumPy warns.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")

BATCH, TOKENS, DIM = 3, 37, 96
TOLERANCES = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (1e-2, 2e-2)}
"""Relative norms of differences that values and gradients may have."""


def leaf(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return random_tensor(shape, seed, dtype).requires_grad_()


def compare(function, inputs: list[Tensor], dtype: torch.dtype) -> None:
    """Values and gradients of the fused function are those of the plain one in float32."""
    exact = [value.detach().float().requires_grad_() if value.is_floating_point() else value for value in inputs]
    theirs, ours = function(*exact), None
    with assume_fused():
        ours = function(*inputs)
        weights = [torch.randn(out.shape, generator=torch.Generator().manual_seed(9)) for out in theirs]
        loss = sum((out.float() * w).sum() for out, w in zip(ours, weights, strict=True))
        grads = torch.autograd.grad(cast(Tensor, loss), inputs)
    exact_loss = sum((out * w).sum() for out, w in zip(theirs, weights, strict=True))
    wanted = torch.autograd.grad(cast(Tensor, exact_loss), exact)
    value_bound, gradient_bound = TOLERANCES[dtype]
    assert max(relative(a, b) for a, b in zip(ours, theirs, strict=True)) < value_bound
    assert [a.dtype for a in grads] == [value.dtype for value in inputs]
    assert max(relative(a, b) for a, b in zip(grads, wanted, strict=True)) < gradient_bound


def modulation(dtype: torch.dtype) -> list[Tensor]:
    """Shift, scale and gate as chunks of one tensor, as a block has them."""
    packed = leaf(BATCH, 3 * DIM, seed=7, dtype=dtype)
    return [part.detach().requires_grad_() for part in packed.chunk(3, dim=1)]


@pytest.mark.parametrize("dtype", TOLERANCES)
class TestResidual:
    def test_norm(self, dtype):
        def function(x, weight):
            return residual.add_and_normalise(x, None, None, weight)

        compare(function, [leaf(BATCH, TOKENS, DIM), leaf(DIM, seed=1)], dtype)

    def test_modulated_norm(self, dtype):
        shift, scale, _ = modulation(dtype)

        def function(x, weight, shift, scale):
            return residual.add_and_normalise(x, None, None, weight, shift, scale, dtype=shift.dtype)

        compare(function, [leaf(BATCH, TOKENS, DIM), leaf(DIM, seed=1), shift, scale], dtype)

    def test_gated_branch_and_norm(self, dtype):
        _, _, gate = modulation(dtype)
        branch = leaf(BATCH, TOKENS, DIM, seed=2, dtype=dtype)
        inputs = [leaf(BATCH, TOKENS, DIM), branch, gate, leaf(DIM, seed=1)]
        compare(residual.add_and_normalise, inputs, dtype)

    def test_branch_and_modulated_norm(self, dtype):
        shift, scale, _ = modulation(dtype)
        branch = leaf(BATCH, TOKENS, DIM, seed=2, dtype=dtype)

        def function(x, branch, weight, shift, scale):
            return residual.add_and_normalise(x, branch, None, weight, shift, scale)

        compare(function, [leaf(BATCH, TOKENS, DIM), branch, leaf(DIM, seed=1), shift, scale], dtype)

    def test_add(self, dtype):
        _, _, gate = modulation(dtype)
        branch = leaf(BATCH, TOKENS, DIM, seed=2, dtype=dtype)
        compare(lambda *inputs: (residual.add(*inputs),), [leaf(BATCH, TOKENS, DIM), branch, gate], dtype)

    @torch.no_grad()
    def test_rest_is_the_branch_of_the_last_samples(self, dtype):
        x, weight = leaf(BATCH, TOKENS, DIM), leaf(DIM, seed=1)
        branch, rest = leaf(2, TOKENS, DIM, seed=2, dtype=dtype), leaf(1, 1, DIM, seed=3, dtype=dtype)
        theirs = residual.add_and_normalise(x, branch.float(), None, weight, rest=rest.float())
        with assume_fused():
            ours = residual.add_and_normalise(x, branch, None, weight, rest=rest)
        assert max(relative(a, b) for a, b in zip(ours, theirs, strict=True)) < TOLERANCES[dtype][0]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_heads(dtype):
    compare(heads.normalise_heads, [leaf(BATCH, TOKENS, 3 * DIM, dtype=dtype)], dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_swiglu(dtype):
    inputs = [leaf(BATCH, TOKENS, DIM, seed=seed, dtype=dtype) for seed in (0, 1)]
    compare(lambda *values: (activations.swiglu(*values),), inputs, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_gelu_product(dtype):
    inputs = [leaf(BATCH, TOKENS, DIM, dtype=dtype), leaf(BATCH, DIM, 16, seed=1, dtype=dtype)]
    compare(lambda *values: (activations.gelu_product(*values),), inputs, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_experts(dtype):
    """Some tokens are taken by several experts, and some by none."""
    chosen = torch.stack([torch.randperm(TOKENS)[:8] for _ in range(BATCH * 4)]).view(BATCH, 4, 8)
    assert chosen[0].unique().numel() < min(TOKENS, chosen[0].numel())

    def moved(tokens, gates):
        routes = experts.Routes(chosen, tokens)
        inputs = experts.gather(tokens, routes)
        return inputs, experts.combine(torch.tanh(inputs), gates, routes, like=tokens)

    compare(moved, [leaf(BATCH, TOKENS, DIM, dtype=dtype), leaf(4 * BATCH * 8, seed=1)], dtype)


def test_inputs_may_lie_in_memory_as_they_like():
    gate = leaf(DIM, BATCH, seed=7).detach().t().requires_grad_()
    branch = leaf(TOKENS, BATCH, DIM, seed=2).detach().transpose(0, 1).requires_grad_()
    inputs = [leaf(BATCH, TOKENS, DIM), branch, gate]
    compare(lambda *values: (residual.add(*values),), inputs, torch.float32)
    compare(residual.add_and_normalise, [*inputs, leaf(DIM, seed=1)], torch.float32)
    hidden = leaf(BATCH, DIM, TOKENS).detach().transpose(1, 2).requires_grad_()
    compare(lambda *values: (activations.gelu_product(*values),), [hidden, leaf(BATCH, DIM, 16, seed=1)], torch.float32)


def test_the_sum_alone_may_be_used():
    x, branch = leaf(BATCH, TOKENS, DIM), leaf(BATCH, TOKENS, DIM, seed=2)
    gate, weight = leaf(BATCH, DIM, seed=7), leaf(DIM, seed=1)
    with assume_fused():
        total, _ = residual.add_and_normalise(x, branch, gate, weight)
        grads = torch.autograd.grad(total.sum(), [x, branch, gate])
    assert torch.equal(grads[0], torch.ones_like(x))
    assert relative(grads[1], gate.unsqueeze(1).expand(-1, TOKENS, -1)) < 1e-5
    assert relative(grads[2], branch.sum(dim=1)) < 1e-5


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_network_computes_the_same_by_either_path(recomputed):
    """All of it together, on 9 tokens, with and without the null branch: 1e-5 in float32."""
    torch.manual_seed(0)
    variant = replace(VARIANTS["MicroDiT_Nano_2"], depth=3)  # the least that has experts between dense layers
    plain = MicroDiT(variant, 6, 8, 64, pos_interp_scale=1.0, guidance_embedding=True)
    randomise(plain)
    fused = copy.deepcopy(plain)
    if recomputed:
        checkpoint_activations(transformer_blocks(fused))
    inputs = torch.randn(2, 8, 6, 6), torch.linspace(-1, 1, 2), torch.randn(2, 5, 64), torch.linspace(1, 3, 2)
    theirs = plain(*inputs)
    theirs.square().mean().backward()
    with assume_fused():
        ours = fused(*inputs)
        ours.square().mean().backward()
        with torch.no_grad():
            both = fused(inputs[0], inputs[1], inputs[2][:1], inputs[3])
    assert relative(ours, theirs) < 1e-5
    with torch.no_grad():
        assert relative(both, plain(inputs[0], inputs[1], inputs[2][:1], inputs[3])) < 1e-5
    for (name, one), other in zip(fused.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-8, name
