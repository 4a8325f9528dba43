"""Writing in the background: copies of tensors in CPU memory, and one thread."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lcm_distill.training.checkpointing.tensors import plain_parts


class Background:
    """One thread that writes, with a process group of its own so that its messages cannot mix with others."""

    def __init__(self) -> None:
        self.group = dist.new_group(backend="gloo")
        self._copies: dict[str, Tensor] = {}
        self._thread = _thread_on_this_device()
        self._written: Future[None] | None = None

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copies in CPU memory, of the same shapes and tensor types; the next call overwrites them."""
        self._allocate(tensors)
        for name, tensor in tensors.items():
            for copy, part in zip(plain_parts(self._copies[name]), plain_parts(tensor), strict=True):
                copy.copy_(part, non_blocking=True)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return {name: self._copies[name] for name in tensors}

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Allocate memory for copies in the thread."""
        self.start(lambda: self._allocate(tensors))

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in the thread."""
        self._written = self._thread.submit(work)

    def finish(self) -> None:
        """Wait for the last work, and raise its error if there was one."""
        if self._written is not None:
            self._written.result()
            self._written = None

    def close(self) -> None:
        """Wait for the last work, end the thread, and raise the work's error if there was one."""
        self._thread.shutdown()
        self.finish()

    def _allocate(self, tensors: Mapping[str, Tensor]) -> None:
        for name in tensors.keys() - self._copies.keys():
            self._copies[name] = _empty_on_cpu(tensors[name])


def _thread_on_this_device() -> ThreadPoolExecutor:
    """A thread with the current GPU of the calling thread; otherwise it would open a context on GPU 0."""
    if not torch.cuda.is_initialized():
        return ThreadPoolExecutor(1, "checkpoint")
    return ThreadPoolExecutor(1, "checkpoint", torch.cuda.set_device, (torch.cuda.current_device(),))


def _empty_on_cpu(tensor: Any) -> Any:
    """An uninitialised tensor of the same kind on the CPU, pinned if the original is on a GPU.

    DTensors and quantised tensors remain such, with their parts on the CPU.
    """
    if not isinstance(tensor, Tensor):  # a DTensor's device mesh
        return tensor
    if not hasattr(tensor, "__tensor_flatten__"):
        return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    kind: Any = type(tensor)
    names, context = kind.__tensor_flatten__(tensor)
    parts = {name: _empty_on_cpu(getattr(tensor, name)) for name in names}
    return kind.__tensor_unflatten__(parts, context, tensor.shape, tensor.stride())
