"""Random tensors and weights, and comparisons of tensors."""

import torch
from torch import Tensor, nn


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The norm of a difference, relative to that of `theirs`, in float64."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).norm() / theirs.norm())


def random_tensor(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, a function of shape and seed, rounded to a dtype."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def randomise(network: nn.Module, vectors: float = 0.2) -> None:
    """Normal weights: matrices that keep the scale of what they multiply, and vectors with this standard deviation."""
    for tensor in network.parameters():
        nn.init.normal_(tensor, std=tensor.shape[-1] ** -0.5 if tensor.dim() > 1 else vectors)
