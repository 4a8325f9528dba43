# The types of torchvision leave out that its functions also take PIL images.
# pyright: reportArgumentType=false
"""Preprocessing against what each kind of interpolation must give."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from lcm_distill.metrics.preprocessing import (
    bicubic,
    clean_fid,
    clip,
    gigagan,
    pytorch_fid,
    square_bicubic,
    torch_fidelity,
)
from lcm_distill.metrics.registry import PROTOCOLS

from .recorded import recorded_image


def of(pixels):
    return Image.fromarray(np.asarray(pixels, dtype=np.uint8))


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (598, 598, 3))


def test_tensorflow_takes_every_second_pixel_of_twice_the_size(noise):
    assert torch.equal(torch_fidelity(of(noise)), torch.from_numpy(noise[::2, ::2]).permute(2, 0, 1).float())


def test_tensorflow_puts_positions_at_corners():
    ramp = np.broadcast_to(np.arange(150)[:, None, None], (150, 40, 3))
    expected = (torch.arange(299, dtype=torch.float32) * 150 / 299).clamp(max=149)
    assert torch.allclose(torch_fidelity(of(ramp))[0, :, 7], expected, atol=1e-4)


def test_pytorch_averages_four_pixels_at_twice_the_size(noise):
    blocks = noise.reshape(299, 2, 299, 2, 3).mean((1, 3))
    assert torch.allclose(pytorch_fid(of(noise)), torch.from_numpy(blocks).permute(2, 0, 1).float(), atol=1e-3)


def test_clean_is_bicubic_without_rounding():
    image = recorded_image(4)
    clean, rounded = clean_fid(image), bicubic(image, 299)
    assert clean.dtype == torch.float32
    assert (clean - rounded.float()).abs().max() <= 1  # Pillow rounds after each of its two passes
    assert (clean != clean.round()).any()


def test_gigagan_goes_by_a_square_of_256():
    image = recorded_image(1)
    left = (image.width - image.height) // 2
    small = image.crop((left, 0, left + image.height, image.height)).resize((256, 256), Image.Resampling.LANCZOS)
    assert torch.equal(gigagan(image), clean_fid(small))


@pytest.mark.parametrize("i", [0, 1, 2, 5, 6, 7])
def test_clip_is_its_own_resize_and_crop(i):
    image = recorded_image(i)
    theirs = center_crop(resize(image, [224], Image.Resampling.BICUBIC), [224])
    assert torch.equal(clip(image, 224), pil_to_tensor(theirs))


def test_squares_are_taken_from_the_middle():
    stripes = np.zeros((10, 21, 3))
    stripes[:, 5:15] = 255
    assert (square_bicubic(of(stripes), 8) == 255).all()


@pytest.mark.parametrize("protocol", [protocol for name, protocol in PROTOCOLS.items() if name != "shapes"])
def test_every_protocol_takes_any_image(protocol):
    shapes = {tuple(protocol.prepare(image).shape) for image in (recorded_image(6), recorded_image(3).convert("L"))}
    assert len(shapes) == 1
    prepared = protocol.prepare(recorded_image(2))
    assert prepared.shape[0] == 3 and prepared.min() >= 0 and prepared.max() <= 255
