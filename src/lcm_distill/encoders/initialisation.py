"""Reproducible random initialisation."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

SEED = 0
"""Seed of all initialisations."""


@contextmanager
def fixed_initialisation() -> Generator[None]:
    """Give networks that are built inside, on the CPU, the same weights every time, and restore torch's generators."""
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.default_generator.manual_seed(SEED)  # torch.manual_seed would seed the accelerators' generators as well
        yield
