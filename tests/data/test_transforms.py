"""Images of every kind become the same square of pixels, or say why not."""

import numpy as np
import pytest
from PIL import Image

from lcm_distill.data.sources.interface import UnusableImage
from lcm_distill.data.transforms import decode, resize_and_crop


def test_short_side_is_resized_and_the_centre_kept(tmp_path):
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 100:200] = (10, 200, 30)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = decode((tmp_path / "wide.png").read_bytes(), 64)
    assert image.size == (300, 100) and resize_and_crop(image, 50).shape == (50, 50, 3)
    assert (resize_and_crop(image, 50)[25, 2:48] == (10, 200, 30)).all()


def test_transparency_lies_over_white(tmp_path):
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(tmp_path / "half.png")
    clear, half = (decode((tmp_path / name).read_bytes(), 64) for name in ("clear.png", "half.png"))
    assert (np.asarray(clear) == 255).all()
    assert half.getpixel((0, 0)) == pytest.approx((255, 127, 127), abs=1)


def test_sixteen_bits_are_scaled_not_saturated(tmp_path):
    Image.fromarray(np.full((64, 64), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    assert (np.asarray(decode((tmp_path / "deep.png").read_bytes(), 64)) == 100).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text.jpg", "not an image"),
        ("cut.jpg", "unreadable"),
        ("tiny.png", "too small: 64x40"),
    ],
)
def test_unusable_images_say_why(tmp_path, name, reason):
    (tmp_path / "text.jpg").write_text("hello")
    noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (64, 40)).save(tmp_path / "tiny.png")
    with pytest.raises(UnusableImage, match=reason):
        decode((tmp_path / name).read_bytes(), 64)
