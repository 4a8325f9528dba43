"""Operations and memory of a training, counted without running it, on the meta device."""

import copy
import time
import weakref
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lcm_distill.config import DistillConfig, LoraSettings, ModelConfig
from lcm_distill.core.machine import memory_bytes
from lcm_distill.kernels.operators import assume_fused
from lcm_distill.models import MicroDiT, build_empty
from lcm_distill.models.precision import low_precision_modules, weight_matrices
from lcm_distill.training.lora import adapt
from lcm_distill.training.objective_registry import OBJECTIVES, teacher_evaluations

MARGIN = 0.1
"""Share of a device's memory that a plan leaves free, for fragmentation and the libraries' workspaces."""
UTILISATION = 0.25
"""Assumed share of the rate of large matrix products that a training reaches: 0.24 at XL/2 on an H100, by
benchmarks/RESULTS.md."""


@cache
def forward_flop(network: MicroDiT, caption_tokens: int, guided: bool = False) -> int:
    """Operations of a forward pass for one sample; a multiplication and an addition count as two.

    Args:
        network: a `meta_network`, with which counting computes nothing; its count is kept.
        guided: count both branches of classifier-free guidance.
    """
    samples = 2 if guided else 1
    with torch.no_grad(), assume_fused(), FlopCounterMode(display=False) as counter:
        _call(network, samples, 1, caption_tokens)
    return counter.get_total_flops()


def distill_flop(model: ModelConfig, settings: DistillConfig, caption_tokens: int) -> int:
    """Operations of all passes of a step for one sample; a backward pass counts as two forward passes."""
    student, teacher = (meta_network(model, guidance_embedding) for guidance_embedding in (True, False))
    forward, guided = forward_flop(student, caption_tokens), forward_flop(teacher, caption_tokens, guided=True)
    flop = 3 * forward + teacher_evaluations(settings) * guided
    flop += OBJECTIVES[settings.objective].student_forwards * forward
    if settings.matching.weight or settings.adversarial.weight:
        mean_steps = (1 + len(settings.matching.sigmas)) / 2
        flop += int((mean_steps + 2) * forward)  # sampling, with a gradient through the last step
    if settings.matching.weight:
        # The critic's training, and the comparison with the teacher.
        flop += guided + 3 * forward
        flop += 0 if settings.matching.shared_noise else guided + forward
    if settings.adversarial.weight:
        # Data, and samples with a gradient of their latents, which takes half of a backward pass.
        flop += 3 * forward_flop(teacher, caption_tokens)
    if settings.response.weight:
        lower = guided if settings.guidance_range[0] > 1 else forward_flop(teacher, caption_tokens)
        due = settings.response.mean_evaluations * (lower + guided) + 2 * 3 * forward
        flop += int(due / settings.response.every)
    return flop


def _call(network: MicroDiT, samples: int, captions: int, caption_tokens: int) -> Tensor:
    weight, side = network.x_embedder.proj.weight, network.latent_size

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, device=weight.device)

    width = network.y_embedder.y_proj.fc1.in_features
    guidance = None if network.cfg_embedder is None else zeros(samples)
    latents = zeros(samples, network.in_channels, side, side)
    return network(latents, zeros(samples), zeros(captions, caption_tokens, width), guidance)


def meta_network(model: ModelConfig, guidance_embedding: bool) -> MicroDiT:
    """The configured network on the meta device, without memory for its weights.

    The result is cached and shared: copy it before changing it.
    """
    sizes = model.latent_size, model.caption_channels, model.pos_interp_scale, model.in_channels
    return _meta_network(model.arch, *sizes, guidance_embedding)


@cache
def _meta_network(arch: str, *sizes: Any) -> MicroDiT:
    return build_empty(arch, *sizes).to("meta")


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors that operations inside the context create.

    Attributes:
        alive: bytes of created tensors that exist now. peak: the maximum of `alive` so far.
    """

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.alive = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the storages that it creates."""
        out = func(*args, **(kwargs or {}))
        made = {storage for storage in _storages(out) if storage not in self._known}
        for storage in made - _storages((args, kwargs)) if made else ():
            self._known.add(storage)
            self._count(storage.nbytes())
            weakref.finalize(storage, self._count, -storage.nbytes())
        return out

    def _count(self, size: int) -> None:
        self.alive += size
        self.peak = max(self.peak, self.alive)


def _storages(values: Any) -> set[torch.UntypedStorage]:
    return {leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measured operations a second of a large matrix product, in `dtype` on a GPU and in float32 on a CPU."""
    on_gpu = device.type == "cuda"
    side, dtype = (8192, dtype) if on_gpu else (1024, torch.float32)
    left = torch.randn(side, side, device=device, dtype=dtype)
    seconds: list[float] = []
    for _ in range(4):  # the first is a warm-up
        began = time.perf_counter()
        torch.mm(left, left)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds[1:])


def device_memory(device: torch.device) -> int:
    """Total memory of a GPU in bytes, or of this machine for a CPU."""
    if device.type == "cuda":
        properties = cast(Any, torch.cuda.get_device_properties(device))  # pyright: ignore[reportUnknownMemberType]
        return properties.total_memory
    return memory_bytes()


def count_parameters(network: nn.Module) -> int:
    """Number of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_low_precision(network: nn.Module) -> int:
    """Number of a network's parameters whose products may be computed in bfloat16."""
    return sum(weight.numel() for module in low_precision_modules(network) for _, weight in weight_matrices(module))


def count_trained(model: ModelConfig, lora: LoraSettings) -> int:
    """Number of the student's trained parameters, which have gradients, moments and averages."""
    student = meta_network(model, guidance_embedding=True)
    if not lora.rank:
        return count_parameters(student)
    student = copy.deepcopy(student)
    adapt(student, lora)
    return sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)
