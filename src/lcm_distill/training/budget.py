"""What a training takes, without running it: operations, memory and time.

Operations are counted on the meta device. For what passes need beside weights see `stages.fake_step`.
"""

import copy
import os
import time
import weakref
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lcm_distill.config import Config, ModelConfig
from lcm_distill.models import MicroDiT, build_empty
from lcm_distill.models.precision import lowered_modules, own_matrices
from lcm_distill.training.lora import adapt

MARGIN = 0.1
"""Share of a device's memory that a plan leaves alone: the allocator's gaps, the libraries' own workspace."""
UTILISATION = 0.5
"""Share of the rate of large matrix products that time is estimated with."""


def forward_flop(network: MicroDiT, caption_tokens: int, guided: bool = False) -> int:
    """Operations of a forward pass for one sample, a multiplication and an addition each counted.

    Args:
        network: on the meta device, where counting computes nothing.
        guided: for a teacher's two guidance branches together.
    """
    samples = 2 if guided else 1
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _call(network, samples, 1, caption_tokens)
    return counter.get_total_flops()


def distill_flop(config: Config, caption_tokens: int) -> int:
    """Operations of all passes that a step makes for one sample; a backward pass counts as two forward ones."""
    student, teacher = (on_meta(config.model, guidance_embedding) for guidance_embedding in (True, False))
    forward, guided = forward_flop(student, caption_tokens), forward_flop(teacher, caption_tokens, guided=True)
    flop = 3 * forward + teacher_evaluations(config) * guided
    # A derivative in forward mode costs about two evaluations, and a target one.
    flop += 2 * forward if config.distill.objective == "scm" else forward
    if config.distill.matching.weight:
        jumps = (1 + len(config.distill.matching.sigmas)) / 2
        # Drawing with a gradient through the last jump, learning of the critic, and the comparison with the teacher.
        flop += int((jumps + 2) * forward) + (guided + 3 * forward) + (guided + forward)
    return flop


def teacher_evaluations(config: Config) -> int:
    """How often a step asks the guided teacher."""
    return 1 if config.distill.objective == "scm" or config.distill.solver == "euler" else 2


def _call(network: MicroDiT, samples: int, captions: int, caption_tokens: int) -> Tensor:
    weight, side = network.x_embedder.proj.weight, network.latent_size

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, device=weight.device)

    width = network.y_embedder.y_proj.fc1.in_features
    guidance = None if network.cfg_embedder is None else zeros(samples)
    latents = zeros(samples, network.in_channels, side, side)
    return network(latents, zeros(samples), zeros(captions, caption_tokens, width), guidance)


def on_meta(model: ModelConfig, guidance_embedding: bool) -> MicroDiT:
    """A network without memory for its weights, to be counted and not to be changed: the next call gives it again."""
    sizes = model.latent_size, model.caption_channels, model.pos_interp_scale, model.in_channels
    return _on_meta(model.arch, *sizes, guidance_embedding)


@cache
def _on_meta(arch: str, *sizes: Any) -> MicroDiT:
    return build_empty(arch, *sizes).to("meta")


class PeakMemory(TorchDispatchMode):
    """Bytes of tensors that are made while it lasts and alive at one time, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it has made."""
        out = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            if storage not in self._known and storage not in given:
                self._known.add(storage)
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        return out

    def _count(self, size: int) -> None:
        self.alive += size
        self.peak = max(self.peak, self.alive)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product: in a dtype on a GPU, in float32 on a CPU."""
    on_gpu = device.type == "cuda"
    side, dtype = (8192, dtype) if on_gpu else (1024, torch.float32)
    left = torch.randn(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(4):  # the first one does not count
        began = time.perf_counter()
        torch.mm(left, left)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds[1:])


def device_memory(device: torch.device) -> int:
    """Bytes of the device; of the machine for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def parameters(network: nn.Module) -> int:
    """How many it has."""
    return sum(parameter.numel() for parameter in network.parameters())


def lowered_parameters(network: nn.Module) -> int:
    """How many of them products in low precision are taken with."""
    return sum(held.numel() for module in lowered_modules(network) for _, held in own_matrices(module))


def trained_parameters(config: Config) -> int:
    """How many of the student's are trained, and so have gradients, moments and averages."""
    if not config.distill.lora.rank:
        return parameters(on_meta(config.model, guidance_embedding=True))
    student = copy.deepcopy(on_meta(config.model, guidance_embedding=True))
    adapt(student, config.distill.lora)
    return sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)
