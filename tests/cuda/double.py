# torch.distributed does not declare its stores as exported.
# pyright: reportPrivateImportUsage=false
"""A double of `torch.cuda` and of process groups, with which code for GPUs is walked where there is none.

It knows what devices there are and which is the current one, and refuses what torch refuses. It computes nothing: a
tensor on `cuda` needs `FakeTensorMode` beside it.
"""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

H100 = "NVIDIA H100 80GB HBM3"


@dataclass
class Gpus:
    """So many GPUs, as `torch.cuda` reports them.

    Attributes:
        memory: bytes of each. held: bytes that were held at most, by index.
        made_current: indices that `set_device` was called with.
    """

    count: int
    name: str = H100
    memory: int = 80 * 2**30
    made_current: list[int] = field(default_factory=list)
    held: dict[int, int] = field(default_factory=dict)
    _of_thread: threading.local = field(default_factory=threading.local)

    @property
    def current(self) -> int:
        """The calling thread's current device; a thread begins with the first one."""
        return getattr(self._of_thread, "index", 0)

    @current.setter
    def current(self, index: int) -> None:
        self._of_thread.index = index

    def set_device(self, device: Any) -> None:
        index = self.index(device, optional=False)
        if index >= self.count:
            raise RuntimeError("CUDA error: invalid device ordinal")
        self.current = index
        self.made_current.append(index)

    def index(self, device: Any, optional: bool = True) -> int:
        """A device's index, or torch's own error."""
        if isinstance(device, int):
            return device
        device = torch.device("cuda" if device is None else device)
        if device.type != "cuda":
            raise ValueError(f"Expected a cuda device, but got: {device}")
        if device.index is None and not optional:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        return self.current if device.index is None else device.index

    def properties(self, device: Any = None) -> SimpleNamespace:
        uuid = f"GPU-{self.index(device)}"
        return SimpleNamespace(name=self.name, total_memory=self.memory, uuid=uuid, major=9, minor=0)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Gpus":
        """In place of the real ones."""
        functions: dict[str, Callable[..., Any]] = {
            "is_available": lambda: self.count > 0,
            "is_initialized": lambda: self.count > 0,
            "device_count": lambda: self.count,
            "current_device": lambda: self.current,
            "set_device": self.set_device,
            "get_device_name": lambda device=None: self.properties(device).name,
            "get_device_properties": self.properties,
            "get_device_capability": lambda device=None: (9, 0),
            "max_memory_allocated": lambda device=None: self.held.get(self.index(device), 0),
            "memory_allocated": lambda device=None: self.held.get(self.index(device), 0),
            "mem_get_info": lambda device=None: (self.memory - self.held.get(self.index(device), 0), self.memory),
            "reset_peak_memory_stats": lambda device=None: self.held.pop(self.index(device), None),
            "synchronize": lambda device=None: None,
            "current_stream": lambda device=None: Stream(self.index(device)),
            "stream": lambda stream: nullcontext(),
            "empty_cache": lambda: None,
            "is_bf16_supported": lambda *_, **__: True,
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)
        return self


@dataclass(frozen=True)
class Stream:
    """What is on it is done."""

    device_index: int
    device_type: str = "cuda"

    def synchronize(self) -> None: ...
    def wait_stream(self, stream: "Stream") -> None: ...


@dataclass
class Groups:
    """Records how process groups are begun. Real ones take their place, over gloo, of this process alone."""

    begun: list[dict[str, Any]] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Groups":
        """In place of `torch.distributed.init_process_group`."""
        begin = dist.init_process_group

        def record(backend: str, **options: Any) -> None:
            self.begun.append({"backend": backend, **options})
            begin("gloo", store=dist.HashStore(), rank=0, world_size=1)

        monkeypatch.setattr(dist, "init_process_group", record)
        monkeypatch.setattr(dist, "get_backend", lambda group=None: self.begun[-1]["backend"])
        return self
