"""A step of training, walked on tensors that say they are on a GPU: in a whole step it is waited for once."""

import pytest
import torch
import torch.distributed as dist

from lcm_distill.config import load_preset
from lcm_distill.data.cache.cache import Cache
from lcm_distill.models.networks import build_network
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training import student, teacher
from lcm_distill.training.engine.world import World
from tests.cuda.walk import NoiseBatches, walking

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # a deep copy does
CARD = torch.device("cuda:0")


@pytest.fixture
def config(tmp_path):
    (tmp_path / "teacher.pt").write_bytes(b"hashed, and not read")
    return lambda preset, *settings: load_preset(preset, [
        f"data.root='{tmp_path}'", f"model.teacher='{tmp_path / 'teacher.pt'}'",
        "engine.activation_checkpointing=false", *settings,
    ])  # fmt: skip


ARCHITECTURES = pytest.mark.parametrize(
    "arch", ["MicroDiT_Nano_2", pytest.param("MicroDiT_XL_2", marks=pytest.mark.slow)]
)
"""The small one runs the same code."""


@pytest.fixture
def no_driver(gpus, groups):
    """What a training needs of its GPU works, though there is none."""
    gpus(0, name="NVIDIA of tomorrow")
    dist.init_process_group("cpu:gloo,cuda:nccl")
    yield
    dist.destroy_process_group()


def step_of(training, waits):
    """What a step waits for, and what it leaves."""
    waits.copies.clear()
    figures = training._step(0)
    assert figures["loss"] == 1.0
    assert waits.copies == [] and len(waits.numbers) == 1
    for network in training.trained.values():
        assert all(parameter.grad is not None for parameter in network.parameters())
        assert {parameter.device for parameter in network.parameters()} == {CARD}
    states = {value.device for state in training.optimiser.state.values() for value in state.values()}
    assert states == {CARD}


@ARCHITECTURES
@pytest.mark.parametrize("matching", [0, 1])
def test_distillation_waits_once_a_step(config, no_driver, tmp_path, monkeypatch, arch, matching):
    chosen = config(
        "microdit_xl_512", f"model.arch={arch}", "distill.batch_size=2", f"distill.matching.weight={matching}",
        "distill.matching.start=0", "engine.validate_every=1000",
    )  # fmt: skip
    monkeypatch.setattr(Cache, "batches", lambda *_: NoiseBatches(chosen, 2))
    with walking(monkeypatch) as waits:
        with CARD:
            weights = build_network(chosen.model, guidance_embedding=False).state_dict()
        monkeypatch.setattr(student, "read_teacher", lambda *_: weights)
        step_of(student.prepare(chosen, RunFolder(tmp_path), World(0, 1, CARD)), waits)


@ARCHITECTURES
@pytest.mark.parametrize("mask_ratio", [0.0, 0.75])
def test_pretraining_waits_once_a_step(config, no_driver, tmp_path, monkeypatch, arch, mask_ratio):
    settings = [f"model.arch={arch}", "pretrain.batch_size=2", f"pretrain.mask_ratio={mask_ratio}"]
    chosen = config("pretrain_xl_256_masked", *settings)
    monkeypatch.setattr(Cache, "batches", lambda *_: NoiseBatches(chosen, 2))
    with walking(monkeypatch) as waits:
        step_of(teacher.prepare(chosen, chosen.pretrain, RunFolder(tmp_path), World(0, 1, CARD)), waits)
