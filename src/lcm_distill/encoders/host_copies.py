"""Asynchronous copies from a GPU to the CPU, during which further work can be queued."""

import numpy as np
import torch
from torch import Tensor


class HostCopy:
    """A tensor that is being copied to the CPU.

    Args:
        tensor: on any device; it must not change until `numpy` has returned.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.to("cpu", non_blocking=True)
        self._copied = None
        if tensor.is_cuda:
            # Blocking: the waiting thread sleeps and leaves the CPU to image decoding.
            self._copied = torch.cuda.Event(blocking=True)
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def numpy(self) -> np.ndarray:
        """The values; waits for the copy to finish."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy.numpy()
