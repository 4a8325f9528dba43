"""Metal (`device = "mps"`), which may not be here: a GPU's tensors without content stand for it, and no float64."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcm_distill.config import EngineConfig, load_preset
from lcm_distill.core import device
from lcm_distill.core.device import resolve_device, to_device
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.diffusion.few_step_samplers import Consistency, Deterministic
from lcm_distill.diffusion.guidance import guided_denoiser
from lcm_distill.diffusion.preconditioning import consistency_function
from lcm_distill.diffusion.samplers import TEACHER_SAMPLERS
from lcm_distill.diffusion.scale_difference import trajectory_point
from lcm_distill.kernels import activations, experts, group_norm, heads, residual
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training import student
from lcm_distill.training.engine.world import World, init_world
from tests.cuda.test_generation import fake, noise, small_network  # noqa: F401  (a fixture)
from tests.cuda.walk import NoiseBatches

METAL = torch.device("cuda")
"""What stands for it."""


class NoFloat64(TorchDispatchMode):
    """Refuses what Metal refuses: 64-bit floats, on what stands for it."""

    def __init__(self, metal=METAL):
        super().__init__()
        self.metal = metal

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, Tensor) and leaf.device.type == self.metal.type and leaf.dtype == torch.float64:
                raise TypeError(f"{func}: Metal has no float64")
        return out


@pytest.fixture
def stand_in(monkeypatch, gpus):
    gpus(0)
    monkeypatch.setattr(device, "has_float64", lambda device: device.type != METAL.type)
    for module in (activations, experts, group_norm, heads, residual):
        monkeypatch.setattr(module, "is_fused", lambda x: False)


def test_the_double_refuses_float64(fake):  # noqa: F811
    with NoFloat64(), pytest.raises(TypeError, match="no float64"):
        torch.zeros(2, dtype=torch.float64).to(METAL)


def test_float64_becomes_float32_on_metal_alone(stand_in, fake):  # noqa: F811
    for dtype in (torch.float64, torch.float32, torch.float16, torch.int64):
        there = torch.float32 if dtype == torch.float64 else dtype
        assert to_device(torch.zeros(2, dtype=dtype), METAL).dtype == there
        assert to_device(torch.zeros(2, dtype=dtype), torch.device("cpu")).dtype == dtype


@pytest.mark.parametrize("has_float64", [("cpu", True), ("cuda:1", True), ("mps", False)])
def test_only_metal_has_no_float64(has_float64):
    assert device.has_float64(torch.device(has_float64[0])) == has_float64[1]


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_teacher_samples(stand_in, fake, solver):  # noqa: F811
    denoise = guided_denoiser(
        small_network(), 0.9, torch.empty(2, 5, 64, device=METAL), torch.full((2,), 3.0, device=METAL)
    )
    with NoFloat64():
        assert TEACHER_SAMPLERS[solver](3)(denoise, noise).dtype == torch.float32
        assert trajectory_point(denoise, noise(0), 80.0, 10.0, 3).dtype == torch.float32


@pytest.mark.parametrize("sampler", [Consistency((80.0, 4.0)), Deterministic((80.0, 4.0))])
def test_a_student_samples(stand_in, fake, sampler):  # noqa: F811
    captions, guidance = torch.empty(2, 5, 64, device=METAL), torch.full((2,), 3.0, device=METAL)
    jump = consistency_function(small_network(), 0.9, 0.002, captions, guidance)
    with NoFloat64():
        assert sampler(jump, noise).dtype == torch.float32


def test_a_step_of_distillation(tmp_path, monkeypatch):
    """All terms, forward, backward and update, without a tensor of float64; meta tensors stand for Metal's."""
    meta = torch.device("meta")
    terms = ["matching.start=0", "adversarial.start=0", "response.weight=1", "batch_size=2"]
    chosen = load_preset("shapes", [*(f"distill.{term}" for term in terms), "engine.tensorboard=false"])
    monkeypatch.setattr(device, "has_float64", lambda device: device != meta)
    monkeypatch.setattr(Cache, "batches", lambda *_: NoiseBatches(chosen, 2))
    tolist = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: [1.0] * tensor.numel() if tensor.is_meta else tolist(tensor))
    read = student.read_teacher  # safetensors reads no meta tensors
    monkeypatch.setattr(student, "read_teacher", lambda model, at: {n: w.to(at) for n, w in read(model).items()})
    training = student.prepare(chosen, RunFolder(tmp_path), World(0, 1, meta))
    with NoFloat64(meta):
        assert training._step(0)["loss"] == 1.0
    for network in training.trained.values():
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_metal_trains_in_one_process_without_a_group(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps") == torch.device("mps") and resolve_device("auto").type != "mps"
    with init_world("mps", EngineConfig()) as world:
        assert world.device.type == "mps" and not torch.distributed.is_initialized()
    with pytest.raises(UserError, match="device = 'mps' trains in one process"):
        init_world("mps", EngineConfig(sharding="fsdp")).__enter__()
