"""An image is turned as its EXIF asks, whatever is wrong with its other tags."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from lcm_distill.data.transforms import decode

ORIENTATION = 0x0112
PIXELS = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
DAMAGED = {
    "values beyond the end": (0x010F, 2, 0xFFFF, 9_999),
    "more values than memory": (0x010F, 2, 0xFFFFFFFF, 0),
    "a fraction for a text": (0x010F, 10, 1, 8),
    "doubles beyond the end": (0x010F, 12, 3, 70_000),
    "a type that there is not": (0x010F, 99, 1, 0),
    "a text for a fraction": (0x011A, 2, 1, 0),
    "a text for a folder": (0xA005, 2, 1, 8),
    "a folder that is itself": (0x8769, 4, 1, 8),
}
"""Number, type, number of values, and value or place of a tag."""


def image_file(kind: str, tags: list[tuple[int, int, int, int]], order: str = ">") -> bytes:
    """An image with these tags of EXIF."""
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    block = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4)
    file = io.BytesIO()
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    Image.fromarray(PIXELS).save(file, kind, exif=b"Exif\0\0" + block, **lossless)
    return file.getvalue()


def orientation_of(value: int, order: str = ">") -> tuple[int, int, int, int]:
    return ORIENTATION, 3, 1, value << 16 if order == ">" else value


def turned(content: bytes, turn: Image.Transpose) -> np.ndarray:
    """The pixels of a file without regard to its EXIF, turned."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB").transpose(turn))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("flaw", DAMAGED)
def test_a_damaged_tag_costs_neither_the_image_nor_its_orientation(kind, flaw):
    for order in "><":
        content = image_file(kind, [DAMAGED[flaw], orientation_of(6, order)], order)
        np.testing.assert_array_equal(np.asarray(decode(content, 1)), turned(content, Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("value", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_sound_exif_is_read_as_ever(kind, value):
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION], exif[0x010F] = value, "maker"
    Image.fromarray(PIXELS).save(file, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))).convert("RGB"))
    for version in (1, 4, 5):
        np.testing.assert_array_equal(np.asarray(decode(file.getvalue(), 1, version)), expected)


def test_a_cache_of_an_earlier_version_goes_on_as_it_was():
    """Pillow gives up at values beyond the end, and reads no orientation after them."""
    content = image_file("PNG", [DAMAGED["values beyond the end"], orientation_of(6)])
    np.testing.assert_array_equal(np.asarray(decode(content, 1, version=4)), PIXELS)


@pytest.mark.parametrize("value", [(ORIENTATION, 2, 4, 0x41424344), (ORIENTATION, 5, 1, 9_999), (ORIENTATION, 3, 0, 0)])
def test_an_orientation_that_cannot_be_read_turns_nothing(value):
    np.testing.assert_array_equal(np.asarray(decode(image_file("PNG", [value]), 1)), PIXELS)
