# The types of torch.from_numpy are partial.
# pyright: reportUnknownMemberType=false
"""Fixed sine-cosine position embedding of image tokens."""

import numpy as np
import torch
from torch import Tensor


def grid_positions(dim: int, side: int, interpolation: float) -> Tensor:
    """Position embedding of a side x side grid of tokens in row-major order, float32 (1, side * side, dim).

    The first half of the channels encodes the column and the second half the row, each as sines, then cosines.

    Args:
        dim: a multiple of 4.
        interpolation: divides the coordinates; with 2.0 the positions at 512 px span those of training at 256 px.
    """
    axis = np.arange(side, dtype=np.float32) / interpolation
    columns, rows = np.meshgrid(axis, axis)
    embedding = np.concatenate([_sines(dim // 2, columns), _sines(dim // 2, rows)], axis=1)
    return torch.from_numpy(embedding).float().unsqueeze(0)


def _sines(dim: int, coordinate: np.ndarray) -> np.ndarray:
    frequencies = 10_000.0 ** -(np.arange(dim // 2, dtype=np.float64) / (dim / 2))
    angles = np.outer(coordinate.reshape(-1), frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
