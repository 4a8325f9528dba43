"""What the engine does to networks changes how they compute and not what."""

import copy

import pytest
import torch

from lcm_distill.config import EngineConfig
from lcm_distill.models import build
from lcm_distill.models.experts import ExpertChoice
from lcm_distill.models.precision import compute_in_bfloat16, low_precision_modules, weight_matrices
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.world import World
from tests.tensors import randomise

WORLD = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = build("MicroDiT_Nano_2", 8, 64, in_channels=8, guidance_embedding=True)
    randomise(network)
    return network


def inputs(batch: int):
    draws = torch.Generator().manual_seed(1)
    latents, captions = torch.randn(batch, 8, 8, 8, generator=draws), torch.randn(batch, 5, 64, generator=draws)
    return latents, torch.linspace(-1, 1, batch), captions, torch.linspace(1, 3, batch)


def test_a_sample_comes_out_the_same_whatever_it_is_batched_with(network):
    """Experts choose among the tokens of each sample by itself."""
    assert any(isinstance(module, ExpertChoice) for module in network.modules())
    with torch.no_grad():
        together = network.double()(*(value.double() for value in inputs(6)))
        apart = torch.cat([network(*(value[i : i + 1].double() for value in inputs(6))) for i in range(6)])
    network.float()
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)


def test_activations_computed_again_give_the_same_bits(network):
    results = []
    for saving in (False, True):
        own = copy.deepcopy(network)
        called = Engine(EngineConfig(activation_checkpointing=saving), WORLD).prepare_trained(own)
        called(*inputs(3)).square().mean().backward()
        results.append({name: parameter.grad for name, parameter in own.named_parameters()})
    plain, saved = results
    assert plain and all(torch.equal(plain[name], saved[name]) for name in plain)


@pytest.mark.parametrize("change", ["loaded", "assigned", "moved"])
def test_copies_follow_weights_that_are_loaded_or_moved(network, change):
    own = copy.deepcopy(network)
    compute_in_bfloat16(own, copied=True)
    doubled = {name: 2 * tensor for name, tensor in own.state_dict().items()}
    if change == "moved":
        own._apply(lambda tensor: 2 * tensor)
    else:
        own.load_state_dict(doubled, assign=change == "assigned")
    copies = [
        (held, module.copies[name]) for module in low_precision_modules(own) for name, held in weight_matrices(module)
    ]
    assert copies and all(torch.equal(copied, held.bfloat16()) for held, copied in copies)
    assert torch.equal(own.blocks[0].attn.qkv.weight, 2 * network.blocks[0].attn.qkv.weight)


def test_bfloat16_computes_in_it_and_keeps_weights_in_float32(network):
    engine = Engine(EngineConfig(precision="bfloat16"), WORLD)
    trained, frozen = copy.deepcopy(network), copy.deepcopy(network)
    ask_trained, ask_frozen = engine.prepare_trained(trained), engine.prepare_frozen(frozen)
    exact, out = network(*inputs(4)), ask_trained(*inputs(4))
    assert out.dtype == torch.float32
    error = ((out - exact).norm() / exact.norm()).item()
    assert 1e-4 < error < 0.1
    torch.testing.assert_close(out, ask_frozen(*inputs(4)))
    out.square().mean().backward()
    assert {parameter.grad.dtype for parameter in trained.parameters() if parameter.grad is not None} == {torch.float32}
    held = {name: parameter.dtype for name, parameter in frozen.named_parameters()}
    assert held["blocks.0.attn.qkv.weight"] == torch.bfloat16 and held["t_embedder.mlp.0.weight"] == torch.float32
    assert frozen.pos_embed.dtype == torch.float32


def test_copies_to_compute_with_follow_the_weights(network):
    engine = Engine(EngineConfig(precision="bfloat16"), WORLD)
    own = copy.deepcopy(network)
    called = engine.prepare_trained(own)
    before = called(*inputs(2))
    with torch.no_grad():
        own.blocks[0].attn.proj.weight.mul_(3)
    assert torch.equal(called(*inputs(2)), before)
    engine.refresh_copies()
    after = called(*inputs(2))
    assert not torch.equal(after, before)
    fresh = Engine(EngineConfig(precision="bfloat16"), WORLD)
    torch.testing.assert_close(fresh.prepare_trained(copy.deepcopy(own))(*inputs(2)), after, rtol=0, atol=0)


def test_gradients_through_copies_are_those_of_casting_at_every_use(network):
    grads = []
    for kept in (True, False):
        own = copy.deepcopy(network)
        compute_in_bfloat16(own, copied=kept)
        own(*inputs(3)).square().mean().backward()
        grads.append({name: parameter.grad for name, parameter in own.named_parameters()})
    copied, cast = grads
    assert all(torch.equal(copied[name], cast[name]) for name in cast)
