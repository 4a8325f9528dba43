"""Random numbers as functions of (seed, stream, step, sample index).

There is no generator state to save: a resumed run, another batch size or another number of workers gives the same
numbers, on every device. Each address is a stream of its own of the counter-based generator Philox
(Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcm_distill.core.errors import UserError
from lcm_distill.core.numbers import is_whole

if TYPE_CHECKING:
    from torch import Tensor

SEEDS = 2**64
"""Number of seeds: from 0 up to the largest number of 64 bits."""


def normal(seed: int, stream: str, step: int, indices: Iterable[int], shape: Sequence[int]) -> "Tensor":
    """Standard normal numbers, float32 (len(indices), *shape), on the CPU."""
    return _draw(seed, stream, step, indices, lambda rng: rng.standard_normal(shape, dtype=np.float32))


def uniform(seed: int, stream: str, step: int, indices: Iterable[int]) -> "Tensor":
    """Uniform numbers in [0, 1), float32 (len(indices),), on the CPU."""
    return _draw(seed, stream, step, indices, lambda rng: rng.random((), dtype=np.float32))


def integer(seed: int, stream: str, step: int, below: int) -> int:
    """A uniform number of range(below)."""
    return int(below * _generator(seed, stream, step, 0).random((), dtype=np.float32))


def permutation(seed: int, stream: str, epoch: int, length: int) -> np.ndarray:
    """A random permutation of range(length), int64 (length,)."""
    return _generator(seed, stream, epoch, 0).permutation(length)


def require_seed(name: str, seed: int) -> None:
    """Check that a number can be a seed: whole, and of 64 bits without a sign.

    Args:
        name: of the seed, for the message.

    Raises:
        UserError: it cannot.
    """
    if not is_whole(seed) or not 0 <= seed < SEEDS:
        raise UserError(f"{name} is {seed}: it must be a whole number from 0 to 2**64 - 1")


def philox(key: tuple[int, int], counter: tuple[int, int, int, int] = (0, 0, 0, 0)) -> "np.random.Generator":
    """The stream of a key, from a counter on; every number is of 64 bits without a sign.

    Raises:
        UserError: the first number of the key, a seed, is out of range.
    """
    require_seed("seed", key[0])
    # As arrays of their own type: NumPy takes a tuple with a number above 2**63 as floats, which drop its last digits.
    words = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=np.array(counter, dtype=np.uint64))
    return np.random.Generator(words)


def stable_hash(text: str) -> int:
    """A hash of a text, 63 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def _draw(
    seed: int, stream: str, step: int, indices: Iterable[int], draw: "Callable[[np.random.Generator], np.ndarray]"
) -> "Tensor":
    import torch  # which what only hashes and permutes does without

    return torch.tensor(np.stack([draw(_generator(seed, stream, step, int(index))) for index in indices]))


def _generator(seed: int, stream: str, step: int, index: int) -> "np.random.Generator":
    # The low two words of the counter advance with each number, so two addresses never share one.
    return philox((seed, stable_hash(stream)), (0, 0, step, index))
