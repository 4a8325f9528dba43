"""What the package agrees on about image files and arrays of pixels."""

import numpy as np
from torch import Tensor

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Suffixes of the image files that are read from folders and archives, in lower case."""


def round_to_uint8(values: np.ndarray) -> np.ndarray:
    """Pixel values of any float dtype, nominally 0 to 255, rounded half up and clipped: uint8 of the same shape."""
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def tensor_to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1], channels first, (..., C, H, W), as uint8 pixels with channels last, (..., H, W, C)."""
    return (images * 255).round().byte().movedim(-3, -1)
