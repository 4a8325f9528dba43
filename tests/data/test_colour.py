"""Colours of images with ICC profiles: what a profile does decides, and not what it is called."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lcm_distill.data.transforms import CONVERTED, decode

SRGB = np.array([[0.4360, 0.2225, 0.0139], [0.3851, 0.7169, 0.0971], [0.1431, 0.0606, 0.7141]])
"""XYZ, at D50, of red, green and blue."""
P3 = np.array([[0.5151, 0.2412, -0.0011], [0.2919, 0.6922, 0.0419], [0.1571, 0.0666, 0.7841]])
D50 = (0.9642, 1.0, 0.8249)


def curve_of_srgb(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def inverse_curve(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values.clip(1e-9) ** (1 / 2.4) - 0.055)


def linear(values: np.ndarray) -> np.ndarray:
    return values


def make_profile(name: str, primaries: np.ndarray | None, curve) -> bytes:
    """A profile of version 2, of RGB or, without primaries, of grey."""
    text = name.encode() + b"\0"
    table = (curve(np.linspace(0, 1, 1024)) * 65535).round().astype(">u2")
    curves = b"curv\0\0\0\0" + struct.pack(">I", len(table)) + table.tobytes()
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78), b"cprt": b"text\0\0\0\0x\0\0\0",
            b"wtpt": xyz(D50)}  # fmt: skip
    if primaries is None:
        tags[b"kTRC"] = curves
    else:
        for colour, values in zip("rgb", primaries, strict=True):
            tags |= {f"{colour}XYZ".encode(): xyz(values), f"{colour}TRC".encode(): curves}
    index, body = b"", b""
    for tag, content in tags.items():
        index += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = bytearray(128)
    head[8:12], head[12:16], head[36:40] = b"\x02\x40\0\0", b"mntr", b"acsp"
    head[16:20], head[20:24], head[68:80] = b"GRAY" if primaries is None else b"RGB ", b"XYZ ", xyz(D50)[8:]
    head[:4] = struct.pack(">I", 132 + len(index) + len(body))
    return bytes(head) + struct.pack(">I", len(tags)) + index + body


def xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def shown(colour: tuple[int, int, int], profile: bytes, mode: str = "RGB", version: int = 3) -> tuple[Any, str | None]:
    """The pixels of an image in one colour as they are decoded, and the note about them."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).convert(mode).save(file, "PNG", icc_profile=profile)
    image = decode(file.getvalue(), 8, version)
    return image.getpixel((3, 3)), image.info.get(CONVERTED)


@pytest.mark.parametrize(
    ("name", "primaries", "curve"),
    [("GIMP built-in Linear sRGB", SRGB, linear), ("sRGB-elle-V2-g10.icc", SRGB, linear),
     ("ClayRGB-elle-V2-srgbtrc.icc", P3, curve_of_srgb), ("sRGB IEC61966-2.1", P3, linear), ("Plain", P3, linear)],
)  # fmt: skip
def test_a_profile_that_changes_colours_is_applied_whatever_its_name(name, primaries, curve):
    colour = (200, 100, 50)
    expected = inverse_curve(np.linalg.inv(SRGB.T) @ primaries.T @ curve(np.array(colour) / 255)) * 255
    pixels, note = shown(colour, make_profile(name, primaries, curve))
    assert pixels == pytest.approx(expected.clip(0, 255), abs=1.5)
    assert note == f"converted from ICC profile {name!r}"
    if "srgb" in name.lower():  # a cache goes on as it was begun
        assert shown(colour, make_profile(name, primaries, curve), version=2) == (colour, None)


@pytest.mark.parametrize("name", ["sRGB IEC61966-2.1", "c2", "Camera RGB Profile"])
def test_a_profile_that_changes_no_colour_leaves_no_note(name):
    profile = make_profile(name, SRGB, curve_of_srgb)
    for colour in ((200, 100, 50), (1, 2, 3), (255, 0, 255)):
        assert shown(colour, profile) == (colour, None)
    assert shown((90, 90, 90), profile, "L") == ((90, 90, 90), None)


def test_profiles_of_grey_are_judged_in_the_same_way():
    assert shown((90, 90, 90), make_profile("sGray", None, curve_of_srgb), "L") == ((90, 90, 90), None)
    level = round(float(inverse_curve(np.array(90 / 255)) * 255))
    pixels, note = shown((90, 90, 90), make_profile("Linear sRGB grey", None, linear), "L")
    assert pixels == pytest.approx((level,) * 3, abs=1) and note == "converted from ICC profile 'Linear sRGB grey'"


@pytest.mark.parametrize(("form", "depth"), [("PNG", 16), ("TIFF", 16), ("PNG", 8), ("TIFF", 8)])
def test_grey_of_any_depth_is_converted_by_its_profile_down_to_the_darkest(form, depth):
    values = np.linspace(0, 2**depth - 1, 64 * 64).astype(np.uint16 if depth == 16 else np.uint8).reshape(64, 64)
    file, profile = io.BytesIO(), make_profile("Linear grey", None, linear)
    Image.fromarray(values).save(file, form, icc_profile=profile)
    image = decode(file.getvalue(), 8)
    expected = inverse_curve(values / (2**depth - 1)) * 255
    assert np.abs(np.asarray(image) - expected[..., None]).max() < 0.6
    assert image.info[CONVERTED] == "converted from ICC profile 'Linear grey'"
    before = decode(file.getvalue(), 8, version=5)  # a cache goes on as it was begun
    assert ("is not for I;16 pixels: ignored" in before.info[CONVERTED]) == (depth == 16)
    if depth == 16:
        np.testing.assert_array_equal(np.asarray(before)[..., 0], (values / 257 + 0.5).astype(np.uint8))


def test_grey_of_16_bits_keeps_its_transparent_value_and_a_profile_that_changes_nothing():
    values, file = np.full((16, 16), 3000, np.uint16), io.BytesIO()
    values[:, :4] = 1234
    linear_grey = make_profile("Linear grey", None, linear)
    Image.fromarray(values).save(file, "PNG", icc_profile=linear_grey, transparency=1234)
    image = decode(file.getvalue(), 8)
    level = float(inverse_curve(np.array(3000 / 65535)) * 255)
    assert image.getpixel((1, 9)) == (255, 255, 255) and image.getpixel((9, 9)) == pytest.approx((level,) * 3, abs=0.6)
    plain = io.BytesIO()
    Image.fromarray(values).save(plain, "PNG", icc_profile=make_profile("sGray", None, curve_of_srgb))
    image = decode(plain.getvalue(), 8)
    assert image.getpixel((9, 9)) == (12, 12, 12) and CONVERTED not in image.info
