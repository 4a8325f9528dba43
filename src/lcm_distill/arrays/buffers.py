"""Reused memory: allocating pages for a batch takes about as long as reading the batch into them."""

import math
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

Allocate = Callable[[int], np.ndarray]
"""Number of bytes -> memory of that size, uint8."""


class Buffers:
    """Arrays whose memory is reused once nothing refers to them or to a view of them."""

    def __init__(self, allocate: Allocate) -> None:
        self._allocate = allocate
        self._free: deque[np.ndarray] = deque()

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialised uint8 array, which shares no memory with any that is still in use."""
        size = math.prod(shape)
        memory = self._free.popleft() if self._free else self._allocate(size)
        if memory.size < size:
            memory = self._allocate(size)
        # Views of `array` have `array` as their base, since its own base is a memoryview: it lives as long as they.
        array = np.frombuffer(memory.data, np.uint8, size) if size else np.empty(0, np.uint8)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array.reshape(shape)


def memory_for_batches() -> Allocate:
    """Page-locked memory if there is CUDA, which copies from it at full speed; else pageable memory."""
    return _page_locked if torch.cuda.is_available() else _pageable


def _pageable(size: int) -> np.ndarray:
    return np.empty(size, np.uint8)


def _page_locked(size: int) -> np.ndarray:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
