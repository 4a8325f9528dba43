"""Random numbers as functions of (seed, stream, step, sample index).

There is no generator state to save: a resumed run, another batch size or another number of workers gives the same
numbers, on every device. Each address is a stream of its own of the counter-based generator Philox
(Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


def normal(seed: int, stream: str, step: int, indices: Iterable[int], shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32 (len(indices), *shape), on the CPU."""
    return _draw(seed, stream, step, indices, lambda rng: rng.standard_normal(shape, dtype=np.float32))


def uniform(seed: int, stream: str, step: int, indices: Iterable[int]) -> Tensor:
    """Uniform numbers in [0, 1), float32 (len(indices),), on the CPU."""
    return _draw(seed, stream, step, indices, lambda rng: rng.random((), dtype=np.float32))


def integer(seed: int, stream: str, step: int, below: int) -> int:
    """A uniform number of range(below)."""
    return int(below * _generator(seed, stream, step, 0).random((), dtype=np.float32))


def permutation(seed: int, stream: str, epoch: int, length: int) -> np.ndarray:
    """A random permutation of range(length), int64 (length,)."""
    return _generator(seed, stream, epoch, 0).permutation(length)


def stable_hash(text: str) -> int:
    """A hash of a text, 63 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def _draw(
    seed: int, stream: str, step: int, indices: Iterable[int], draw: Callable[[np.random.Generator], np.ndarray]
) -> Tensor:
    return torch.tensor(np.stack([draw(_generator(seed, stream, step, int(index))) for index in indices]))


def _generator(seed: int, stream: str, step: int, index: int) -> np.random.Generator:
    # The low two words of the counter advance with each number, so two addresses never share one.
    return np.random.Generator(np.random.Philox(key=(seed, stable_hash(stream)), counter=(0, 0, step, index)))
