"""How fast a step was: images a second, share of the device's peak, memory."""

import resource
import sys

import torch

PEAK_FLOP = {
    "H200": 989.4e12,
    "H100 PCIe": 756e12,
    "H100": 989.4e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}
"""Dense bfloat16 operations a second by the makers' data sheets, by a part of a device's name; the first that fits."""


def peak_flop(device: torch.device) -> float | None:
    """The most operations a second that a device's maker names; None where that is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOP.items() if part in name), None)


def peak_memory(device: torch.device) -> float:
    """The most memory that was held so far, in GiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
