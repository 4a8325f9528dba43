"""Random weights that are the same every time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SEED = 0


@contextmanager
def fixed_initialisation() -> Iterator[None]:
    """Networks built inside, on the CPU, get the same weights every time; torch's own generators stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # torch.manual_seed would seed the accelerators' generators as well
        yield
