"""Memory that is used again: fresh pages for a batch cost about as much as reading the batch into them."""

import math
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

Allocate = Callable[[int], np.ndarray]
"""Gives so many bytes of memory, as uint8."""


class Buffers:
    """Arrays whose memory comes back once nobody holds them or a view of them."""

    def __init__(self, allocate: Allocate) -> None:
        self._allocate = allocate
        self._free: deque[np.ndarray] = deque()

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8 with arbitrary content, unshared with any that is still held."""
        size = math.prod(shape)
        memory = self._free.popleft() if self._free else self._allocate(size)
        if memory.size < size:
            memory = self._allocate(size)
        # Views of `array` refer to it and no further, as its own base is a memoryview: it lives as long as they do.
        array = np.frombuffer(memory.data, np.uint8, size) if size else np.empty(0, np.uint8)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array.reshape(shape)


def memory_for_batches() -> Allocate:
    """Page-locked memory where there is CUDA, which copies from it at full speed; else memory like any other."""
    return _page_locked if torch.cuda.is_available() else _pageable


def _pageable(size: int) -> np.ndarray:
    return np.empty(size, np.uint8)


def _page_locked(size: int) -> np.ndarray:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
