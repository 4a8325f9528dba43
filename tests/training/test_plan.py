"""What a dry run counts, against known numbers."""

from contextlib import nullcontext

import pytest
import torch

from lcm_distill.config import load_preset
from lcm_distill.models.experts import ExpertChoice
from lcm_distill.models.layers import FeedForward
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.budget import (
    PeakMemory,
    count_parameters,
    count_trained,
    distill_flop,
    forward_flop,
    meta_network,
)
from lcm_distill.training.fake_step import META, FakeStep, fused_attention, memory_per_sample
from lcm_distill.training.objective_registry import build_objective
from lcm_distill.training.plan import caption_tokens, largest_micro_batch, plan_distillation
from lcm_distill.training.student_networks import build_networks

OBJECTIVE_ALONE = ["distill.matching.weight=0", "distill.adversarial.weight=0"]


@pytest.fixture(scope="module")
def xl():
    return load_preset("microdit_xl_512", [*OBJECTIVE_ALONE, "distill.solver=euler"])


def test_operations_of_xl_are_the_references_without_one_hot_products(xl):
    student, teacher = (meta_network(xl.model, guidance_embedding) for guidance_embedding in (True, False))
    assert (count_parameters(teacher), count_parameters(student)) == (1_165_442_320, 1_167_017_232)
    one_hot = sum(
        2 * 2 * layer.experts * int(layer.capacity * 1024 / layer.experts) * 1024 * layer.w1.shape[1]
        for layer in student.modules()
        if isinstance(layer, ExpertChoice)
    )
    assert one_hot / 1e9 == pytest.approx(131.0, abs=0.05)
    forward = forward_flop(student, 77)
    assert (forward + one_hot) / 1e9 == pytest.approx(1131.9, abs=0.05)
    # Teacher: an evaluation of both branches, or two, the null one without attention to a caption.
    guided = forward_flop(teacher, 77, guided=True)
    assert 1.8 * forward < guided < 1.9 * forward
    assert distill_flop(xl.model, xl.distill, 77) == 4 * forward + guided
    heun = load_preset("microdit_xl_512", OBJECTIVE_ALONE)
    assert distill_flop(heun.model, heun.distill, 77) == 4 * forward + 2 * guided


def test_operations_of_terms_beside_matching(xl):
    """One noise for critic and matching saves a guided evaluation and the critic's; the response has trajectories of
    6, 5, 4, 3 or 2 evaluations, of which half are the first, and two trained passes."""
    forward = forward_flop(meta_network(xl.model, True), 77)
    guided, conditional = (forward_flop(meta_network(xl.model, False), 77, branches) for branches in (True, False))

    def flop(*settings: str) -> int:
        config = load_preset("microdit_xl_512", settings)
        return distill_flop(config.model, config.distill, 77)

    assert flop("distill.matching.shared_noise=false") - flop() == guided + forward
    assert flop() - flop("distill.adversarial.weight=0") == 3 * conditional
    sampling = int((1 + 4) / 2 * forward) + 2 * forward  # needed by either term
    alone = flop("distill.matching.weight=0") - flop(*OBJECTIVE_ALONE)
    assert alone == pytest.approx(3 * conditional + sampling, abs=2)
    response = ("distill.response.weight=1", "distill.response.every=2")
    mean = 6 / 2 + (5 + 4 + 3 + 2) / 4 / 2  # the lower trajectory, at scale 1, needs no second branch
    assert flop(*response) - flop() == pytest.approx(mean * (conditional + guided) / 2 + 3 * forward, abs=2)
    both = (*response, "distill.guidance_range=[2.0, 7.0]")
    assert flop(*both) - flop() == pytest.approx(mean * 2 * guided / 2 + 3 * forward, abs=2)


def test_peak_memory_of_a_known_layer():
    layer = FeedForward(8, 24, 16)
    x = torch.randn(4, 8)
    with torch.no_grad(), PeakMemory() as memory:
        out = layer(x)
    hidden, outer = 4 * 16 * 4, 4 * 8 * 4
    # Two hidden products and silu of the first, then their product: three are alive at one time, or four in between.
    assert memory.peak in (3 * hidden, 4 * hidden)
    assert memory.alive == outer
    del out
    assert memory.alive == 0


def test_micro_batch_is_what_fits_beside_the_rest():
    sizes = [1_000, 100, 86, 85, 0]  # nine tenths of them can be had
    assert [largest_micro_batch(size, states=70, per_sample=7) for size in sizes] == [118, 2, 1, 0, 0]


def test_computing_blocks_again_saves_memory():
    kept, again = (
        memory_per_sample(load_preset("shapes", [f"engine.activation_checkpointing={recompute}"]), 16)
        for recompute in ("false", "true")
    )
    assert again < 0.6 * kept


def test_fake_passes_take_the_memory_of_real_ones():
    config = load_preset("shapes", ["engine.precision=bfloat16"])
    peaks = []
    for device, attention in ((META, fused_attention()), (torch.device("cpu"), nullcontext())):
        objective = build_objective(config.distill, config.diffusion)
        weights = meta_network(config.model, guidance_embedding=False).state_dict()
        networks = build_networks(config.model, config.distill, config.distill_seed, objective, weights)
        with attention:
            step = FakeStep(config, objective, networks, 16, samples=4, device=device)
            for network in filter(None, networks):
                for tensor in network.state_dict().values():
                    torch.nn.init.normal_(tensor, std=0.02)
            step.engine.refresh_copies()
            with PeakMemory() as memory:
                step.passes()
            peaks.append(memory.peak)
    assert peaks[0] == pytest.approx(peaks[1], rel=0.01)


def test_adapters_alone_have_gradients_moments_and_averages():
    whole, adapted = (load_preset("shapes", [f"distill.lora.rank={rank}"]) for rank in (0, 4))
    student = meta_network(whole.model, guidance_embedding=True)
    assert count_trained(whole.model, whole.distill.lora) == count_parameters(student)
    assert student.cfg_embedder is not None
    embedder = sum(parameter.numel() for parameter in student.cfg_embedder.parameters())
    assert embedder < count_trained(adapted.model, adapted.distill.lora) < 0.5 * count_parameters(student)
    # The shared network is as it was.
    assert count_parameters(meta_network(whole.model, guidance_embedding=True)) == count_parameters(student)


@pytest.mark.parametrize(("moments", "bytes_a_parameter"), [("float32", 8), ("8bit", 2 + 2 * 4 / 256)])
def test_states_count_a_critic_and_moments_as_they_are_held(tmp_path, moments, bytes_a_parameter):
    planned = plan_distillation(load_preset("shapes", [f"distill.moments={moments}"]), RunFolder(tmp_path))
    billions = count_parameters(meta_network(load_preset("shapes").model, guidance_embedding=True)) / 1e9
    states = planned["gb_of_states"]
    assert states["optimiser"] == pytest.approx(bytes_a_parameter * billions, abs=5e-4)
    assert states["critic"] == pytest.approx((4 + 4 + bytes_a_parameter) * billions, abs=5e-4)
    assert planned["gb_of_a_checkpoint"] == pytest.approx((16 + 2 * bytes_a_parameter) * billions, abs=5e-4)


def test_operations_of_a_tiny_network_are_not_rounded_to_nothing(tmp_path):
    config = load_preset("shapes")
    planned = plan_distillation(config, RunFolder(tmp_path))
    forward = forward_flop(meta_network(config.model, guidance_embedding=True), caption_tokens(config.encoders)) / 1e9
    assert forward < 0.1
    assert planned["gflop_per_forward"] == pytest.approx(forward, rel=1e-4)
    passes = planned["tflop_per_step"] * 1000 / config.distill.batch_size
    assert planned["gflop_per_sample"] == pytest.approx(passes, rel=1e-4)


@pytest.mark.parametrize("setting", ["engine.sharding=fsdp", "distill.lora.rank=4"])
def test_a_plan_does_not_care_how_weights_are_held(tmp_path, setting):
    planned = plan_distillation(load_preset("shapes", [setting]), RunFolder(tmp_path))
    assert 0 < planned["gb_per_sample_recomputed"] < planned["gb_per_sample_kept"]


def test_a_plan_of_forward_mode_says_that_it_counts_no_memory(tmp_path):
    planned = plan_distillation(load_preset("shapes", ["distill.objective=scm"]), RunFolder(tmp_path))
    assert "micro_batch_80_gb_kept" not in planned and planned["micro_batches"].startswith("not counted")
