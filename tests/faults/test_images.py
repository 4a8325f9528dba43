"""Damaged and disguised image files: decoded, or refused with a reason."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from lcm_distill.data.transforms import decode
from lcm_distill.formats.images import IMAGE_FORMATS, UnusableImage

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
OTHERS = ("EPS", "PPM", "ICO", "PCX", "SGI", "TGA", "PDF", "IM", "DDS", "ICNS", "JPEG2000")
TAGS = (0x010F, 0x011A, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825, 0x9286, 0xA005, 0x0112)


def image(random: np.random.Generator, kind: str) -> bytes:
    mode = random.choice(["RGB", "L", "P", "RGBA"]) if kind in ("PNG", "TIFF", "GIF") else "RGB"
    pixels = random.integers(0, 255, (int(random.integers(8, 64)), int(random.integers(8, 64)), 3), np.uint8)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = int(random.integers(1, 9))
    exif[0x010E] = "a description"
    extra = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    Image.fromarray(pixels).convert(mode).save(file, kind, **extra)
    return file.getvalue()


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, cut out or put in, near the front as often as anywhere."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        end = len(changed) if random.random() < 0.5 else min(200, len(changed))
        place, length = int(random.integers(0, max(1, end))), int(random.integers(1, 9))
        replacement = random.bytes(length) if random.random() < 0.5 else bytes([int(random.choice([0, 255]))]) * length
        match random.integers(0, 4):
            case 0:
                changed[place : place + length] = replacement
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = replacement
            case _:
                if random.random() < 0.2:
                    del changed[place + 20 :]
                elif changed:
                    changed[min(place, len(changed) - 1)] ^= 1 << int(random.integers(0, 8))
    return bytes(changed)


def outcome(content: bytes) -> str:
    """Whether it is decoded or refused; anything else is an error."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("error")
        try:
            decoded = decode(content, 4)
        except UnusableImage as reason:
            assert str(reason) and "\0" not in str(reason)
            return "refused"
        assert decoded.mode == "RGB" and np.asarray(decoded).shape == (decoded.height, decoded.width, 3)
    assert not shown
    return "decoded"


@pytest.mark.trials(full=1_000, sample=150)
def test_mutated_images(trials):
    """JPEG, PNG, WebP, GIF, BMP and TIFF files with changed bytes: decoded or refused."""
    for trial in trials:
        trials.count(outcome(mutated(image(trials.random, KINDS[trial % len(KINDS)]), trials.random)))


@pytest.mark.trials(full=500, sample=100)
def test_exif_of_unexpected_types(trials):
    """EXIF tags of unexpected types in a rotated JPEG: decoded or refused."""
    for _ in trials:
        trials.count(outcome(with_exif(trials.random)))


@pytest.mark.trials(full=len(OTHERS), sample=len(OTHERS))
def test_other_formats_are_not_opened(trials, monkeypatch):
    """Formats that are not decoded, under the name of one that is: refused before their code runs."""
    from PIL import EpsImagePlugin

    def run(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    Image.init()  # all of Pillow's formats are there, as after any other library has looked for one
    for trial in trials:
        kind, file = OTHERS[trial], io.BytesIO()
        assert kind not in IMAGE_FORMATS
        Image.new("RGB", (64, 64), (1, 2, 3)).save(file, kind)
        with pytest.raises(UnusableImage, match=r"^not an image$"):
            decode(file.getvalue(), 4)
        trials.count("refused")


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(UnusableImage, match=r"exceeds limit .* pixels"):
        decode(bytes(content), 4)


def with_exif(random: np.random.Generator) -> bytes:
    """A JPEG whose EXIF asks for a rotation, and has some other tags of random types, counts and values."""
    entries = {0x0112: struct.pack(">HHIHH", 0x0112, 3, 1, int(random.integers(2, 9)), 0)}
    for tag in random.choice(TAGS, int(random.integers(1, 4)), replace=False):
        kind, count = int(random.integers(0, 15)), int(random.choice([0, 1, 2, 5, 1_000, 2**31]))
        entries[int(tag)] = struct.pack(">HHI", int(tag), kind, count) + random.bytes(4)
    table = b"".join(entries[tag] for tag in sorted(entries))
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + table + b"\0\0\0\0"
    file = io.BytesIO()
    Image.new("RGB", (16, 12)).save(file, "JPEG", exif=b"Exif\0\0" + block)
    return file.getvalue()
