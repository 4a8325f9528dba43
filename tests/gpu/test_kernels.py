"""Fused kernels as a GPU runs them, at the sizes of XL/2, against plain PyTorch in float64 on the same GPU."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest
import torch
from torch import Tensor

from lcm_distill.config import load_preset
from lcm_distill.kernels import activations, experts, group_norm, heads, residual
from lcm_distill.models.networks import build_network
from tests.gpu.conftest import GPU
from tests.tensors import random_tensor, randomise, relative

pytestmark = GPU

BATCH, TOKENS, DIM, EXPERTS, TAKEN = 2, 1024, 1024, 8, 256
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Relative norms of differences in values and gradients: some eighty roundings of float32, five of bfloat16."""


def norm(x: Tensor, weight: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return residual.normalise(x, weight, shift, scale)


def branch_and_norm(x: Tensor, branch: Tensor, gate: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return residual.add_and_normalise(x, branch, gate, weight)


def branch_and_modulated_norm(
    x: Tensor, branch: Tensor, weight: Tensor, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    return residual.add_and_normalise(x, branch, None, weight, shift, scale)


def routed(tokens: Tensor, gates: Tensor) -> Tensor:
    """Some tokens are taken by several experts, and some by none."""
    shuffle = torch.Generator().manual_seed(0)
    chosen = torch.stack([torch.randperm(TOKENS, generator=shuffle)[:TAKEN] for _ in range(BATCH * EXPERTS)])
    routes = experts.Routes(chosen.view(BATCH, EXPERTS, TAKEN).cuda(), tokens)
    return experts.combine(torch.tanh(experts.gather(tokens, routes)), gates, routes, like=tokens)


EXACT = torch.float32
"""The residual stream, weights of norms and experts' gates are float32 whatever a network computes in."""
X, WEIGHT, GATES = ((BATCH, TOKENS, DIM), EXACT), ((DIM,), EXACT), ((EXPERTS * BATCH * TAKEN,), EXACT)
BRANCH, CHANNELS = ((BATCH, TOKENS, DIM), None), ((BATCH, DIM), None)
FUNCTIONS: list[tuple[Callable[..., Tensor | tuple[Tensor, ...]], list[tuple[tuple[int, ...], torch.dtype | None]]]] = [
    (norm, [X, WEIGHT, CHANNELS, CHANNELS]),
    (branch_and_norm, [X, BRANCH, CHANNELS, WEIGHT]),
    (branch_and_modulated_norm, [X, BRANCH, WEIGHT, CHANNELS, CHANNELS]),
    (residual.add, [X, BRANCH, CHANNELS]),
    (heads.normalise_heads, [((BATCH, TOKENS, 3 * DIM), None)]),
    (activations.swiglu, [BRANCH, BRANCH]),
    (activations.gelu_product, [BRANCH, ((BATCH, DIM, 512), None)]),
    (routed, [BRANCH, GATES]),
]


@contextmanager
def plain_path() -> Iterator[None]:
    """No fused kernels."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (activations, experts, group_norm, heads, residual):
            patch.setattr(module, "is_fused", lambda x: False)
        yield


def leaf(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    """Values that are the same in every dtype, up to rounding: generators draw other ones in each."""
    return random_tensor(shape, seed, torch.float64).to("cuda", dtype).requires_grad_()


def values_and_gradients(function: Callable, inputs: list[Tensor]) -> list[Tensor]:
    results = function(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    weights = [leaf(tuple(result.shape), 100 + n, result.dtype).detach() for n, result in enumerate(results)]
    loss = sum((result * weight).sum(dtype=torch.float64) for result, weight in zip(results, weights, strict=True))
    return [result.detach() for result in results] + list(torch.autograd.grad(cast(Tensor, loss), inputs))


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(("function", "shapes"), FUNCTIONS, ids=[function.__name__ for function, _ in FUNCTIONS])
def test_a_kernel_gives_values_and_gradients_of_float64(function, shapes, dtype):
    inputs = [leaf(shape, seed, exact or dtype) for seed, (shape, exact) in enumerate(shapes)]
    ours = values_and_gradients(function, inputs)
    with plain_path():
        theirs = values_and_gradients(function, [value.detach().double().requires_grad_() for value in inputs])
    assert [relative(a, b) for a, b in zip(ours, theirs, strict=True)] == pytest.approx(
        [0] * len(ours), abs=BOUNDS[dtype]
    )


@torch.no_grad()
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_group_norm_gives_values_of_pytorchs(dtype):
    """At a size of the VAE's, in channels-last memory, far from zero."""
    x = (3 * leaf((2, 512, 64, 64), 0, dtype) + 20).contiguous(memory_format=torch.channels_last)
    weight, bias, shift = (leaf((512,), seed, torch.float32) for seed in (1, 2, 3))
    ours = group_norm.group_norm(x, weight, bias, 32, 1e-6, True, shift)
    with plain_path():
        theirs = group_norm.group_norm(x.float(), weight, bias, 32, 1e-6, True, shift)
    assert relative(ours, theirs) < 10 * BOUNDS[dtype]  # the mean, which takes digits, is seven deviations


def test_a_network_of_xl_is_that_of_float64():
    """Forward and backward. A token whose gate ties may go to another expert: hence the bound."""
    config = load_preset("microdit_xl_512", ["model.latent_size=16", "data.resolutions=[128]", "data.root=x"])
    with torch.device("cuda"):
        network = build_network(config.model, guidance_embedding=True)
        torch.manual_seed(0)
        randomise(network)
    network = network.cuda()  # tables of positions were made on the CPU
    shapes = [(2, 4, 16, 16), (2,), (2, 77, 1024), (2,)]
    inputs = [leaf(shape, seed, torch.float32).detach() for seed, shape in enumerate(shapes)]
    exact = copy.deepcopy(network).double()
    ours = network(*inputs)
    ours.square().mean().backward()
    with plain_path():
        theirs = exact(*(value.double() for value in inputs))
        theirs.square().mean().backward()
    assert relative(ours, theirs) < 1e-3
    for (name, parameter), other in zip(network.named_parameters(), exact.parameters(), strict=True):
        assert parameter.grad is not None and other.grad is not None
        assert (parameter.grad - other.grad).norm() <= 1e-2 * other.grad.norm() + 1e-8, name
