"""Copies from a GPU that do not make it wait: the next work is queued meanwhile."""

import numpy as np
import torch
from torch import Tensor


class Returning:
    """A tensor on its way to the CPU."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.to("cpu", non_blocking=True)
        self._copied = None
        if tensor.is_cuda:
            self._copied = torch.cuda.Event(blocking=True)  # the waiting thread sleeps: others have images to decode
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def numpy(self) -> np.ndarray:
        """Its values, once they are here."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy.numpy()
