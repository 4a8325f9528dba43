# torch.library is typed in part only.
# pyright: reportUnknownMemberType=false
"""A distillation step on the meta device, whose tensors have shapes and no values, to measure what memory it needs."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcm_distill.config import Config
from lcm_distill.data.cache.loader import Batch
from lcm_distill.diffusion.objectives.interface import Objective
from lcm_distill.kernels.operators import assume_fused
from lcm_distill.training.budget import PeakMemory, meta_network
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.world import World
from lcm_distill.training.loss import total
from lcm_distill.training.objective_registry import build_objective
from lcm_distill.training.student_loss import StudentLoss
from lcm_distill.training.student_networks import DistillationNetworks, build_networks

SAMPLES = 64
"""Samples in the measured pass, enough for memory that does not grow with them to be negligible."""
META = torch.device("meta")


class FakeStep:
    """Networks and one micro-batch of a distillation, as a single GPU would hold them.

    Attributes:
        networks: all networks of the distillation, without values.
        engine: prepared them.
    """

    def __init__(
        self,
        config: Config,
        objective: Objective,
        networks: DistillationNetworks,
        caption_tokens: int,
        samples: int,
        device: torch.device = META,
    ) -> None:
        self.networks = networks
        for network in filter(None, networks):
            network.to_empty(device=device)
        unsharded = config.engine.model_copy(update={"sharding": "none"})
        self.engine = Engine(unsharded, World(0, 1, device))
        self.loss = StudentLoss(config.distill, config.diffusion, config.distill_seed, objective, networks, self.engine)
        self.step = config.distill.steps - 1  # distribution matching has begun
        model = config.model
        latents = torch.zeros(samples, model.in_channels, model.latent_size, model.latent_size)
        captions = torch.zeros(samples, caption_tokens, model.caption_channels)
        latents, captions = (held.to(device, torch.float16) for held in (latents, captions))
        self.batch = Batch(np.arange(samples), np.arange(samples), latents, captions)

    def passes(self) -> None:
        """All forward and backward passes of the micro-batch; gradients accumulate."""
        total(self.loss(self.step, self.batch)).backward()  # pyright: ignore[reportUnknownMemberType]


def memory_per_sample(config: Config, caption_tokens: int) -> int:
    """Bytes that the passes of a micro-batch need for each sample, beside weights and gradients."""
    with fake_step(config, caption_tokens, SAMPLES) as step:
        for network in (step.networks.student, step.networks.critic):
            for parameter in network.parameters() if network else ():
                parameter.grad = torch.empty_like(parameter)  # of earlier micro-batches
        with PeakMemory() as memory:
            step.passes()
    return memory.peak // SAMPLES


@contextmanager
def fake_step(config: Config, caption_tokens: int, samples: int) -> Generator[FakeStep]:
    """A step on the meta device, in a context in which its passes use the kernels of a GPU."""
    objective = build_objective(config.distill, config.diffusion)
    weights = meta_network(config.model, guidance_embedding=False).state_dict()
    networks = build_networks(config.model, config.distill, config.distill_seed, objective, weights)
    with assume_fused(), fused_attention():
        yield FakeStep(config, objective, networks, caption_tokens, samples)


@contextmanager
def fused_attention() -> Generator[None]:
    """Attention on the meta device keeps what a fused kernel keeps, where PyTorch would keep the product of tokens."""
    with torch.library._scoped_library("aten", "IMPL") as library:  # pyright: ignore[reportPrivateUsage]
        library.impl("scaled_dot_product_attention", _flash_attention, "AutogradMeta")
        yield


def _flash_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]
