"""Throughput of a device: its peak rate, and the peak memory of this process."""

import resource
import sys

import torch

from lcm_distill.training.engine.world import World

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


def throughput(samples: int, seconds: float, flop: float | None, world: World) -> dict[str, float | None]:
    """The figures of a step's speed and memory, as the records of steps have them.

    Args:
        samples: of the step, of all ranks. seconds: that it took.
        flop: operations for one sample; None to leave utilisation out.
    """
    images, peak = samples / seconds, peak_flop(world.device)
    return {
        "seconds": seconds,
        "images_per_second": images,
        "flop_utilisation": images * flop / (peak * world.size) if flop and peak else None,
        "memory_gib": peak_memory(world.device),
    }
