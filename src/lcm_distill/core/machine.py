"""What this machine has: processors, memory, GPUs, disk, and releases of libraries."""

import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

DISTRIBUTION = "lcm-distill"
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
"""File that an NVIDIA driver makes on Linux."""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device that PyTorch finds.

    Attributes:
        name: of the product. index: as in `cuda:0`.
        memory: bytes. free: bytes that nothing has taken.
    """

    index: int
    name: str
    memory: int
    free: int


@dataclass(frozen=True)
class Release:
    """A library that the package requires.

    Attributes:
        required: the releases that do, as pyproject.toml has them, such as `torch>=2.11`.
        installed: the release that is here; None where there is none.
    """

    required: Requirement
    installed: str | None

    @property
    def fits(self) -> bool:
        """Whether it is here in a release that does."""
        return self.installed is not None and self.required.specifier.contains(self.installed, prereleases=True)


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_disk_bytes(folder: Path) -> int:
    """Free space where a folder is."""
    return shutil.disk_usage(folder).free


def gpus() -> list[Gpu]:
    """The CUDA devices that PyTorch finds; none is initialised for longer than the call."""
    import torch

    found: list[Gpu] = []
    for index in range(torch.cuda.device_count()):
        free, memory = torch.cuda.mem_get_info(index)
        found.append(Gpu(index, torch.cuda.get_device_name(index), memory, free))
    return found


def python_version() -> Version:
    """The release of this interpreter."""
    return Version(platform.python_version())


def releases() -> list[Release]:
    """Every library that the package requires without its extras."""
    wanted = map(Requirement, metadata.requires(DISTRIBUTION) or [])
    return [Release(one, _installed(one.name)) for one in wanted if one.marker is None or one.marker.evaluate()]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
