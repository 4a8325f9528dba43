"""Pixels as bytes."""

import numpy as np
import torch

from lcm_distill.formats.images import round_to_uint8, tensor_to_uint8


def test_values_are_rounded_and_clipped():
    values = np.array([-3.0, 0.49, 0.5, 127.4, 254.5, 255.0, 300.0])
    assert round_to_uint8(values).tolist() == [0, 0, 1, 127, 255, 255, 255]
    assert round_to_uint8(values).dtype == np.uint8


def test_channels_become_last():
    images = torch.tensor([0.0, 0.25, 1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    pixels = tensor_to_uint8(images)
    assert pixels.dtype == torch.uint8 and pixels.shape == (2, 4, 5, 3)
    assert pixels[1, 2, 3].tolist() == [0, 64, 255]
