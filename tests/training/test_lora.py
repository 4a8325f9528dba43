"""Adapters change nothing at first, are all that is trained, and come out merged as well as by themselves."""

from pathlib import Path

import pytest
import torch

from lcm_distill import assets
from lcm_distill.config import Config, load_preset
from lcm_distill.models import MicroDiT, build, load_checkpoint
from lcm_distill.models.checkpoint import read_tensors
from lcm_distill.models.networks import build_network, load_teacher
from lcm_distill.models.precision import compute_in_bfloat16
from lcm_distill.stages.distill import distill
from lcm_distill.stages.export import export
from lcm_distill.training.lora import adapt, copy_sharing_frozen, merge
from lcm_distill.training.student_networks import student_from_teacher
from tests.conftest import SMALL
from tests.runs import borrow
from tests.tensors import random_doubles

LORA = ["distill.lora.rank=4", "distill.lora.alpha=8", "distill.learning_rate=1e-3", "distill.warmup_steps=0"]


def new_student(config: Config) -> MicroDiT:
    return student_from_teacher(config.model, config.distill)


@pytest.fixture(scope="module")
def inputs():
    return (
        random_doubles(1, 2, 8, 8, 8).float(),
        random_doubles(2, 2).float(),
        random_doubles(3, 2, 16, 64).float(),
    )


def test_an_adapted_student_starts_as_its_teacher_and_trains_adapters_alone(inputs):
    config = load_preset("shapes", LORA)
    student, teacher = new_student(config), load_teacher(config.model)
    with torch.no_grad():
        assert torch.equal(student(*inputs, torch.tensor([1.0, 3.0])), teacher(*inputs))
    trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"patch_mixer", "blocks", "cfg_embedder"}
    assert all(".lora_" in name or name.startswith("cfg_embedder.") for name in trained)
    # q, kv and two projections in each of six blocks, three dense layers in each of four.
    assert sum(".lora_A." in name for name in trained) == 6 * 5 + 4 * 3


def test_adapters_of_the_published_layouts_are_small():
    with torch.device("meta"):
        tiny = build("MicroDiT_Tiny_2", 32, 1024, guidance_embedding=True)
        whole = sum(parameter.numel() for parameter in tiny.parameters())
        adapt(tiny, load_preset("shapes", ["distill.lora.rank=16"]).distill.lora)
    adapters = sum(parameter.numel() for name, parameter in tiny.named_parameters() if ".lora_" in name)
    assert 0 < adapters < 0.03 * whole


def test_copies_share_what_is_not_trained():
    student = new_student(load_preset("shapes", LORA))
    copied = copy_sharing_frozen(student)
    own, theirs = dict(student.named_parameters()), dict(copied.named_parameters())
    assert all((theirs[name] is parameter) == (not parameter.requires_grad) for name, parameter in own.items())


def test_student_is_published_merged_and_as_an_adapter(finished_run, tmp_path, inputs):
    from peft import PeftModel

    config = load_preset("shapes", [*SMALL, *LORA, "distill.steps=3"])
    run = borrow(finished_run, tmp_path, "cache")
    list(distill(config, run))
    before = read_tensors(run.student)
    run.student.unlink()
    exported = read_tensors(Path(export(config, run, "safetensors")["file"]))  # from the last checkpoint
    assert exported.keys() == before.keys() and all(torch.equal(exported[name], before[name]) for name in before)
    list(distill(config, run))
    merged = build_network(config.model, guidance_embedding=True)
    load_checkpoint(merged, run.student)
    teacher = read_tensors(assets.TEACHER)
    weights = merged.state_dict()
    changed = {name for name, tensor in teacher.items() if not torch.equal(tensor, weights[name])}
    assert "blocks.0.attn.qkv.weight" in changed and "blocks.0.mlp.w3.weight" in changed
    assert not any(name.startswith(("blocks.1.mlp.", "final_layer", "x_embedder")) for name in changed)
    student = new_student(load_preset("shapes"))
    adapted = PeftModel.from_pretrained(student, str(run.adapter))
    guidance = torch.tensor([1.0, 3.0])
    with torch.no_grad():
        ours, expected = adapted(*inputs, guidance), merged(*inputs, guidance)
        plain = new_student(load_preset("shapes"))(*inputs, guidance)
    assert torch.allclose(ours, expected, atol=1e-5)
    assert (plain - expected).norm() > 1e-3 * expected.norm()


def test_adapters_multiply_in_bfloat16(inputs):
    student = new_student(load_preset("shapes", LORA))
    compute_in_bfloat16(student, copied=True)
    seen = list[torch.dtype]()
    for name, module in student.named_modules():
        if name.endswith((".lora_A.default", ".lora_B.default")) or hasattr(module, "lora_A"):
            module.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    student(*inputs, torch.tensor([1.0, 3.0])).square().mean().backward()
    assert len(seen) == 3 * (6 * 5 + 4 * 3) and set(seen) == {torch.bfloat16}
    grads = [weight.grad for name, weight in student.named_parameters() if ".lora_B." in name]
    assert all(grad is not None and grad.dtype == torch.float32 and grad.any() for grad in grads)


def test_merged_weights_compute_what_adapters_compute(inputs):
    config = load_preset("shapes", LORA)
    torch.manual_seed(0)
    student = new_student(config)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.05)
    plain = build_network(config.model, guidance_embedding=True)
    plain.load_state_dict(merge(student.state_dict(), config.distill.lora))
    guidance = torch.tensor([1.0, 3.0])
    with torch.no_grad():
        assert torch.allclose(
            student.double()(*(x.double() for x in inputs), guidance.double()),
            plain.double()(*(x.double() for x in inputs), guidance.double()),
            rtol=1e-4,
            atol=1e-5,
        )
