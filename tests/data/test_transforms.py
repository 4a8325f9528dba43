"""Images of every kind become the same square of pixels, or say why not."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torchvision.transforms import v2

from lcm_distill.data.transforms import CONVERTED, decode, resize_and_crop
from lcm_distill.formats.images import UnusableImage


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


def png(depth: int, colour: int, row: bytes, transparent: bytes) -> bytes:
    """A PNG file of one row of two pixels, of which the samples are given, with a transparent colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in parts)


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "earlier"),
    [
        (1, 0, b"\x40", b"\0\0", [255, 255]),
        (2, 0, b"\x10", b"\0\0", [255, 85]),
        (2, 0, b"\x40", b"\0\1", [85, 0]),
        (4, 0, b"\x12", b"\0\1", [17, 34]),
        (8, 0, b"\x04\x64", b"\0\4", [255, 100]),
        (8, 2, b"\1\2\3\x64\x64\x64", b"\0\1\0\2\0\3", [255, 100]),
        (16, 0, b"\x04\x04\x64\x64", b"\x04\x04", [4, 100]),
        (16, 2, b"\1\2\1\2\1\2\x64\x64\x64\x64\x64\x64", b"\1\2\1\2\1\2", [1, 100]),
    ],
)
def test_a_transparent_colour_lies_over_white_at_every_depth(depth, colour, row, transparent, earlier):
    content = png(depth, colour, row, transparent)
    image = np.asarray(decode(content, 1))
    assert image[0, 0].tolist() == [255] * 3 and image[0, 1].tolist() == [earlier[1]] * 3
    assert np.asarray(decode(content, 1, version=3))[0, :, 0].tolist() == earlier


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


def torchvision_crop(image: Image.Image, resolution: int) -> np.ndarray:
    both = v2.Compose([v2.Resize(resolution, v2.InterpolationMode.BICUBIC), v2.CenterCrop(resolution)])
    return np.asarray(both(image))


def torchvision_tensor_crop(pixels: np.ndarray, resolution: int) -> np.ndarray:
    resize = v2.Resize(resolution, v2.InterpolationMode.BICUBIC, antialias=True)
    image = v2.CenterCrop(resolution)(resize(torch.from_numpy(pixels).permute(2, 0, 1)))
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("width", "height", "resolution"), [(65, 64, 64), (64, 65, 64), (683, 512, 512)])
def test_an_odd_difference_keeps_stripes_and_its_pixels(width, height, resolution):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    pixels[:, ::2, 0], pixels[:, 1::2, 0] = 0, 255
    crop = resize_and_crop(Image.fromarray(pixels), resolution)
    assert set(np.unique(crop[..., 0])) == {0, 255}
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    np.testing.assert_array_equal(crop, pixels[top : top + resolution, left : left + resolution])


def test_a_square_is_cropped_as_ever():
    """What `shapes` is made of: caches of either version hold the same."""
    for side in (64, 100):
        image = Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8))
        np.testing.assert_array_equal(resize_and_crop(image, 64), resize_and_crop(image, 64, version=1))


def test_a_strip_does_not_fill_the_memory(monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def recorded(self, size, *arguments, **named):
        sizes.append(size)
        return resize(self, size, *arguments, **named)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    assert resize_and_crop(Image.new("RGB", (100_000, 8)), 64).shape == (64, 64, 3)
    assert max(sizes[0]) <= 32 * 64


def encoded(image: Image.Image, kind: str, **named) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **named)
    return file.getvalue()


def unusual_image(kind: str, width: int = 130, height: int = 91) -> tuple[bytes, Image.Image]:
    """An image file of a mode that is not plain RGB, of noise, and what it shows."""
    random = np.random.default_rng([width, height])
    image = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
    alpha = Image.fromarray(random.integers(0, 256, (height, width), np.uint8))
    return KINDS[kind](image, alpha)


def _cmyk(image: Image.Image, kind: str, **named) -> tuple[bytes, Image.Image]:
    content = encoded(image.convert("CMYK"), kind, **named)
    return content, Image.open(io.BytesIO(content)).convert("RGB")


def _palette(image: Image.Image, kind: str, **named) -> tuple[bytes, Image.Image]:
    palette = image.quantize(64, Image.Quantize.FASTOCTREE)
    return encoded(palette, kind, **named), palette.convert("RGB")


def _clear_colour(image: Image.Image) -> tuple[bytes, Image.Image]:
    """A palette of which one colour is transparent."""
    palette = image.quantize(64, Image.Quantize.FASTOCTREE)
    shown = np.where((np.asarray(palette) == 3)[..., None], 255, np.asarray(palette.convert("RGB")))
    return encoded(palette, "PNG", transparency=3, compress_level=1), Image.fromarray(shown.astype(np.uint8))


def _deep(image: Image.Image) -> tuple[bytes, Image.Image]:
    grey = image.convert("L")
    return encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG", **FAST), grey.convert("RGB")


def _layered(image: Image.Image, alpha: Image.Image) -> tuple[bytes, Image.Image]:
    layered = image.copy()
    layered.putalpha(alpha)
    return encoded(layered, "PNG", **FAST), Image.composite(image, Image.new("RGB", image.size, "white"), alpha)


def _turned(image: Image.Image, orientation: int, turn: Image.Transpose) -> tuple[bytes, Image.Image]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "PNG", exif=exif, **FAST), image.transpose(turn)


FAST = {"compress_level": 1}
KINDS = {
    "RGB": lambda image, alpha: (encoded(image, "PNG", **FAST), image),
    "CMYK": lambda image, alpha: _cmyk(image, "TIFF", compression="raw"),
    "CMYK of a JPEG": lambda image, alpha: _cmyk(image, "JPEG"),
    "palette": lambda image, alpha: _palette(image, "PNG", **FAST),
    "GIF": lambda image, alpha: _palette(image, "GIF"),
    "16-bit": lambda image, alpha: _deep(image),
    "grey": lambda image, alpha: (encoded(image.convert("L"), "BMP"), image.convert("L").convert("RGB")),
    "one bit": lambda image, alpha: (encoded(image.convert("1"), "TIFF"), image.convert("1").convert("RGB")),
    "transparency": _layered,
    "transparent colour": lambda image, alpha: _clear_colour(image),
    "EXIF 6": lambda image, alpha: _turned(image, 6, Image.Transpose.ROTATE_270),
    "EXIF 2": lambda image, alpha: _turned(image, 2, Image.Transpose.FLIP_LEFT_RIGHT),
    "WebP": lambda image, alpha: (encoded(image, "WEBP", lossless=True, quality=0, method=0), image),
}
"""Files of each kind, by name."""


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_kind_are_what_they_show(kind):
    content, shown = unusual_image(kind)
    image = decode(content, 64)
    for resolution in (64, 96):
        difference = resize_and_crop(image, resolution).astype(int) - torchvision_crop(shown, resolution)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(("resolution", "number"), [(512, 50), (64, 150)])
def test_crops_are_those_of_torchvision(resolution, number):
    """200 random sizes, up and down, of odd differences and every kind of file: within one step of 255.

    What is decoded without rounding gives the same bits, and nearly those that torchvision gives for a tensor.
    """
    random = np.random.default_rng(resolution)
    for trial in range(number):
        width, height = (int(side) for side in random.integers(resolution // 3, 2 * resolution, 2))
        kind = list(KINDS)[trial % len(KINDS)]
        content, shown = unusual_image(kind, width, height)
        crop, expected = resize_and_crop(decode(content, 8), resolution), torchvision_crop(shown, resolution)
        rounded = kind == "transparency"  # compositing rounds, once in Pillow's way and once in the test's
        assert np.abs(crop.astype(int) - expected).max() <= (1 if rounded else 0), (kind, width, height)
        if trial % 10 == 0:
            # torchvision rounds the weights for tensors otherwise, and differs from itself by as much.
            difference = np.abs(crop.astype(int) - torchvision_tensor_crop(np.array(shown), resolution))
            assert difference.max() <= 2 + rounded and difference.mean() < 0.3, (kind, width, height)


def test_floating_point_pixels_are_refused():
    with pytest.raises(UnusableImage, match="range nothing tells"):
        decode(encoded(Image.fromarray(np.ones((64, 64), np.float32)), "TIFF"), 64)
    with pytest.raises(UnusableImage, match="more than 16 bits"):
        decode(encoded(Image.fromarray(np.full((64, 64), 2**20, np.int32)), "TIFF"), 64)


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        exact = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **exact)
        assert decode(content, 64).getpixel((5, 5)) == (255, 0, 0)


def swapped_primaries() -> bytes:
    """sRGB's profile with the columns of red and green exchanged: a red that is shown green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    tags = {bytes(profile[place : place + 4]): place for place in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_of_another_profile_are_converted_and_said_so(mode):
    plain = Image.new("RGB", (64, 64), (40, 200, 30))
    shown = plain.quantize(4) if mode == "P" else plain.convert(mode)
    image = decode(encoded(shown, "PNG", icc_profile=swapped_primaries()), 64)
    assert image.getpixel((9, 9)) == pytest.approx((200, 40, 30), abs=2)
    assert image.info[CONVERTED].startswith("converted from ICC profile 'swap")
    as_before = decode(encoded(shown, "PNG", icc_profile=swapped_primaries()), 64, version=1)
    assert as_before.getpixel((9, 9)) == (40, 200, 30) and CONVERTED not in as_before.info


def test_profiles_that_say_nothing_or_cannot_be_read_change_nothing():
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, note in ((srgb, None), (b"no profile", "damaged ICC profile: ignored")):
        image = decode(encoded(Image.fromarray(pixels), "PNG", icc_profile=profile), 64)
        np.testing.assert_array_equal(np.asarray(image), pixels)
        assert image.info.get(CONVERTED) == note
    grey = decode(encoded(Image.fromarray(pixels[..., 0]), "PNG", icc_profile=swapped_primaries()), 64)
    assert "is not for L pixels: ignored" in grey.info[CONVERTED]
