"""Which device work runs on."""

import torch

from lcm_distill.core.errors import UserError


def resolve_device(name: str) -> torch.device:
    """The device called `name`, a GPU always with its index; a GPU becomes the calling thread's current device.

    Streams, Triton kernels and collectives go to the current device, whatever device their tensors are on.

    Args:
        name: `auto` (the current GPU where there is one, else the CPU), `cpu`, `cuda` (the current GPU), `cuda:1` ...

    Raises:
        UserError: no such device here.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device {name!r} is unknown: write auto, cpu, cuda or cuda:0") from error
    # PyTorch takes cuda:256 for cuda:0.
    if str(device) != name or device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is unknown: write auto, cpu, cuda or cuda:0")
    if device.type != "cuda":
        return device
    if not available:
        raise UserError(f"device {name!r} is not here: PyTorch finds no CUDA device")
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise UserError(f"device {name!r} is not here: there {_are(count)}, counted from cuda:0")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _are(count: int) -> str:
    return "is 1 CUDA device" if count == 1 else f"are {count} CUDA devices"


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values of the CPU on a device, without waiting for what a GPU still has to do.

    They are copied to pinned memory of their own first, so that the memory they lie in may be used again at once.
    """
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.empty_like(values, pin_memory=True).copy_(values).to(device, non_blocking=True)
    return values.to(device)
