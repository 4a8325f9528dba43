"""How fast a step was: images a second, share of the device's peak, memory."""

import resource
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from lcm_distill.models import MicroDiT

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


def forward_flop(network: MicroDiT, caption_length: int) -> int:
    """Operations of one sample's forward pass, multiplications and additions both counted.

    Args:
        network: may be on the meta device, where counting costs nothing.
    """
    weight = network.x_embedder.proj.weight
    side, channels = network.latent_size, network.in_channels

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, device=weight.device, dtype=weight.dtype)

    caption_channels = network.y_embedder.y_proj.fc1.in_features
    guidance = zeros(1) if network.cfg_embedder is not None else None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(zeros(1, channels, side, side), zeros(1), zeros(1, caption_length, caption_channels), guidance)
    return counter.get_total_flops()


def peak_memory(device: torch.device) -> float:
    """The most memory that was held so far, in GiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
