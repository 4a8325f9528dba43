"""A step of a distillation on fake tensors, which have sizes and no content: it runs and computes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lcm_distill.config import Config
from lcm_distill.data.cache.loader import Batch
from lcm_distill.diffusion.objectives.interface import Objective
from lcm_distill.kernels.operators import assume_fused
from lcm_distill.training.budget import PeakMemory, on_meta
from lcm_distill.training.engine.engine import Engine
from lcm_distill.training.engine.world import World
from lcm_distill.training.objectives import build_objective
from lcm_distill.training.student import TrainedNetworks, build_loss, build_networks

SAMPLES = 64
"""In the passes that memory is counted in: so many that what does not grow with them hardly shows."""


class FakeStep:
    """Networks and a micro-batch of a distillation, as one GPU would have them.

    Fake tensors say that they are on the CPU, where a backward pass needs no GPU; kernels are those of a GPU.

    Attributes:
        networks: all that take part.
        engine: what has prepared them.
    """

    def __init__(
        self, config: Config, objective: Objective, networks: TrainedNetworks, caption_tokens: int, samples: int
    ) -> None:
        self.networks = networks
        for network in filter(None, networks):
            network.to_empty(device="cpu")
        whole = config.engine.model_copy(update={"sharding": "none"})
        self.engine = Engine(whole, World(0, 1, torch.device("cpu")))
        self.loss = build_loss(config, objective, networks, self.engine)
        self.step = config.distill.steps - 1  # distribution matching has begun
        model = config.model
        latents = torch.zeros(samples, model.in_channels, model.latent_size, model.latent_size, dtype=torch.float16)
        captions = torch.zeros(samples, caption_tokens, model.caption_channels, dtype=torch.float16)
        self.batch = Batch(np.arange(samples), latents, captions)

    def passes(self) -> None:
        """All passes of a micro-batch; gradients are added to what there is."""
        self.loss(self.step, self.batch).backward()


def memory_per_sample(config: Config, caption_tokens: int) -> int:
    """Bytes that the passes of a micro-batch need for each of its samples, beside weights and gradients."""
    with fake_step(config, caption_tokens, SAMPLES) as step:
        for network in (step.networks.student, step.networks.critic):
            for parameter in network.parameters() if network else ():
                parameter.grad = torch.empty_like(parameter)  # of the micro-batches before
        with PeakMemory() as memory:
            step.passes()
    return memory.peak // SAMPLES


@contextmanager
def fake_step(config: Config, caption_tokens: int, samples: int) -> Iterator[FakeStep]:
    """A step that lasts as long as the context, in which every tensor is a fake one."""
    objective = build_objective(config)
    networks = build_networks(config, objective, on_meta(config.model, guidance_embedding=False).state_dict())
    with FakeTensorMode(allow_non_fake_inputs=True), assume_fused():
        yield FakeStep(config, objective, networks, caption_tokens, samples)
