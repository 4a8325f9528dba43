"""Memory that is used again: fresh pages for a batch cost about as much as reading the batch into them."""

import math
import weakref
from collections import deque

import numpy as np


class Buffers:
    """Arrays whose memory comes back once nobody holds them or a view of them."""

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque()

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8 with arbitrary content, unshared with any that is still held."""
        size = math.prod(shape)
        memory = self._free.popleft() if self._free else np.empty(size, np.uint8)
        if memory.size < size:
            memory = np.empty(size, np.uint8)
        # Views of `array` refer to it and no further, as its own base is a memoryview: it lives as long as they do.
        array = np.frombuffer(memory.data, np.uint8, size) if size else np.empty(0, np.uint8)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array.reshape(shape)
