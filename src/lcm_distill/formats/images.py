"""What the package agrees on about image files and arrays of pixels."""

import re
import warnings
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".jpe", ".apng")
"""Suffixes of the image files that are read from folders and archives, in lower case."""

OTHER_IMAGE_SUFFIXES = (
    *(".heic", ".heif", ".hif", ".avif", ".avifs", ".jxl", ".jxr", ".bpg", ".svg", ".svgz", ".exr", ".hdr", ".psb"),
    *(".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".mpo", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".pam", ".psd"),
    *(".dib", ".ico", ".icns", ".cur", ".tga", ".icb", ".vda", ".vst", ".qoi", ".dds", ".eps", ".ps", ".wmf", ".emf"),
    *(".pcx", ".dcx", ".sgi", ".rgb", ".rgba", ".bw", ".ras", ".im", ".xbm", ".xpm", ".fit", ".fits", ".fli", ".flc"),
    *(".blp", ".ftc", ".ftu", ".gbr", ".msp", ".palm", ".pcd", ".pxr"),
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".srw", ".orf", ".pef", ".raf", ".raw"),
    *(".rw2", ".rwl", ".x3f", ".3fr", ".fff", ".erf", ".kdc", ".dcr", ".mrw", ".mos", ".mef", ".iiq"),
)
"""Suffixes of image files of other formats, of cameras and of what Pillow knows: they are counted, and not decoded."""

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are decoded, by their content, whatever the file is called. Pillow knows others, one of which runs
Ghostscript."""

MAX_IMAGE_BYTES = 2**30
"""The largest image file that is read."""

MARKS = 64
"""Bytes at the start and the end of a file that tell its format, and that it is whole."""

_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile("PIL\\."), 0)


class UnusableImage(Exception):
    """An image that cannot be used; the message is the reason in the manifest."""


def open_image(content: bytes) -> "Image.Image":
    """An image file of `IMAGE_FORMATS`, not decoded yet: its first frame. Pillow's warnings are ignored from then on.

    Raises:
        Exception: of any kind, as it is malformed; `PIL.UnidentifiedImageError` where it is of no such format.
    """
    from PIL import Image

    if _PILLOW_WARNINGS not in warnings.filters:
        warnings.filterwarnings("ignore", module="PIL\\.")
    return Image.open(BytesIO(content), formats=IMAGE_FORMATS)


def has_its_end(start: bytes, end: bytes, size: int) -> bool:
    """Whether an image file ends as its format does; False for formats that have no mark of their end.

    Args:
        start: its first bytes, `MARKS` at least. end: its last ones. size: of all of it, in bytes.
    """
    if start.startswith(b"RIFF"):
        return int.from_bytes(start[4:8], "little") + 8 <= size
    marks = {b"\x89PNG": b"IEND", b"\xff\xd8": b"\xff\xd9"}
    return any(start.startswith(first) and last in end for first, last in marks.items())


def begins_as_image(start: bytes) -> bool:
    """Whether content begins as image files of `IMAGE_FORMATS`, HEIF and AVIF do.

    Args:
        start: its first bytes, `MARKS` at least.
    """
    plain = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
    bitmap = start.startswith(b"BM") and start[6:10] == bytes(4)
    boxed = start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"avif", b"avis")
    return start.startswith(plain) or bitmap or boxed or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def round_to_uint8(values: np.ndarray) -> np.ndarray:
    """Pixel values of any float dtype, nominally 0 to 255, rounded half up and clipped: uint8 of the same shape."""
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def tensor_to_uint8(images: "Tensor") -> "Tensor":
    """Images in [0, 1], channels first, (..., C, H, W), as uint8 pixels with channels last, (..., H, W, C)."""
    return (images * 255).round().byte().movedim(-3, -1)
