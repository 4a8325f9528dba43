"""Random tensors and weights, and comparisons of tensors."""

import math
import zlib

import torch
from torch import Tensor, nn

from lcm_distill.models import MicroDiT


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The norm of a difference, relative to that of `theirs`, in float64."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).norm() / theirs.norm())


def random_tensor(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, a function of shape and seed, float64 or float32 rounded to a dtype."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=exact).to(dtype)


def random_doubles(seed: int, *shape: int) -> Tensor:
    """`random_tensor` in float64."""
    return random_tensor(shape, seed, torch.float64)


def random_images(shape: tuple[int, ...], seed: int) -> Tensor:
    """Images in [-1, 1] of uniform noise."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def randomise(network: nn.Module, vectors: float = 0.2) -> None:
    """Normal weights: matrices that keep the scale of what they multiply, and vectors with this standard deviation."""
    for tensor in network.parameters():
        nn.init.normal_(tensor, std=tensor.shape[-1] ** -0.5 if tensor.dim() > 1 else vectors)


def perturb(network: nn.Module) -> None:
    """Add small noise to all weights: biases and norms that are not zeros and ones must find their places."""
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)


def name_seeded(model: MicroDiT) -> MicroDiT:
    """Weights anyone can rebuild: each tensor is random numbers of a generator seeded by the CRC of its name."""
    for name, tensor in model.state_dict().items():
        if name in ("pos_embed", "mask_token"):
            continue
        numbers = random_tensor(tuple(tensor.shape), zlib.crc32(name.encode()))
        if tensor.dim() == 1:
            value = 0.02 * numbers + (1 if name.endswith("weight") else 0)
        else:
            value = numbers / math.sqrt(math.prod(tensor.shape[1:]) if tensor.dim() == 4 else tensor.shape[1])
        tensor.copy_(value)
    return model
