"""Throughput of a device: its peak rate, and the peak memory of this process."""

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
"""Dense bfloat16 operations a second by the vendor's data sheet, by a part of the device's name; the first match
counts."""


def peak_flop(device: torch.device) -> float | None:
    """A GPU's peak rate in operations a second by its data sheet; None for a CPU or an unknown GPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOP.items() if part in name), None)


def peak_memory(device: torch.device) -> float:
    """Peak memory so far in GiB: allocated on the GPU, or resident in this process for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
