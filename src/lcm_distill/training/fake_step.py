"""A distillation step on fake tensors, which have shapes and no values, to measure what memory a step needs."""

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lcm_distill.config import Config
from lcm_distill.data.cache.loader import Batch
from lcm_distill.diffusion.objectives.interface import Objective
from lcm_distill.kernels.operators import assume_fused
from lcm_distill.training.budget import PeakMemory, meta_network
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.world import World
from lcm_distill.training.objectives import build_objective
from lcm_distill.training.student import build_loss
from lcm_distill.training.student_networks import DistillationNetworks, build_networks

SAMPLES = 64
"""Samples in the measured pass, enough for memory that does not grow with them to be negligible."""


class FakeStep:
    """Networks and one micro-batch of a distillation, as a single GPU would hold them.

    Fake tensors claim to be on the CPU, where a backward pass needs no GPU; kernels are the fused ones of a GPU.

    Attributes:
        networks: all networks of the distillation.
        engine: prepared them.
    """

    def __init__(
        self, config: Config, objective: Objective, networks: DistillationNetworks, caption_tokens: int, samples: int
    ) -> None:
        self.networks = networks
        for network in filter(None, networks):
            network.to_empty(device="cpu")
        unsharded = config.engine.model_copy(update={"sharding": "none"})
        self.engine = Engine(unsharded, World(0, 1, torch.device("cpu")))
        self.loss = build_loss(config.distill, config.diffusion, config.distill_seed, objective, networks, self.engine)
        self.step = config.distill.steps - 1  # distribution matching has begun
        model = config.model
        latents = torch.zeros(samples, model.in_channels, model.latent_size, model.latent_size, dtype=torch.float16)
        captions = torch.zeros(samples, caption_tokens, model.caption_channels, dtype=torch.float16)
        self.batch = Batch(np.arange(samples), np.arange(samples), latents, captions)

    def passes(self) -> None:
        """All forward and backward passes of the micro-batch; gradients accumulate."""
        self.loss(self.step, self.batch).backward()  # pyright: ignore[reportUnknownMemberType]


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
    """A step inside a context in which every tensor is fake."""
    objective = build_objective(config.distill, config.diffusion)
    weights = meta_network(config.model, guidance_embedding=False).state_dict()
    networks = build_networks(config, objective, weights)
    with FakeTensorMode(allow_non_fake_inputs=True), assume_fused():
        yield FakeStep(config, objective, networks, caption_tokens, samples)
