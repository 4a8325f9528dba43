"""Choosing a device, and copying tensors to it."""

import torch

from lcm_distill.core.errors import UserError


def resolve_device(name: str) -> torch.device:
    """The device `name`, a GPU always with its index. A GPU becomes the current device of the calling thread.

    Streams, Triton kernels and collectives use the current device, whatever device their tensors are on.

    Args:
        name: `auto` (the current GPU if there is one, else the CPU), `cpu`, `cuda` (the current GPU), `cuda:1` etc.,
            or `mps` (Apple's Metal).

    Raises:
        UserError: there is no such device.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device {name!r} is unknown: write auto, cpu, cuda, cuda:0 or mps") from error
    # PyTorch reads cuda:256 as cuda:0.
    if str(device) != name or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {name!r} is unknown: write auto, cpu, cuda, cuda:0 or mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {name!r} is not here: PyTorch finds no Metal device")
    if device.type != "cuda":
        return device
    if not available:
        raise UserError(f"device {name!r} is not here: PyTorch finds no CUDA device")
    count = torch.cuda.device_count()
    index = device.index if ":" in name else torch.cuda.current_device()
    if index >= count:
        raise UserError(f"device {name!r} is not here: there {_are(count)}, counted from cuda:0")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _are(count: int) -> str:
    return "is 1 CUDA device" if count == 1 else f"are {count} CUDA devices"


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, which Metal does not."""
    return device.type != "mps"


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to a device without waiting for work that is queued on a GPU.

    It is copied to pinned memory first, so that its own memory can be reused at once. Metal has no float64: there
    float64 becomes float32, 2^-24 of each value apart.
    """
    if values.dtype == torch.float64 and not has_float64(device):
        values = values.float()
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.empty_like(values, pin_memory=True).copy_(values).to(device, non_blocking=True)
    return values.to(device)
