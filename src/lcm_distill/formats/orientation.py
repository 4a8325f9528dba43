"""EXIF orientation of images, whatever is wrong with their other tags."""

import struct

from PIL import ExifTags, Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What shows an image as it is meant, by the value of its orientation; others change nothing."""
ENTRY = 12
"""Bytes of a tag's entry: its number, its type, how many values it has, and these or where they are."""
VALUES = {3: "H", 4: "I"}
"""Types of whole numbers without a sign, of 2 and 4 bytes."""


def upright(image: Image.Image, by_pillow: bool = False) -> Image.Image:
    """A decoded image, turned as its orientation asks; with an orientation that cannot be read, as it is.

    Args:
        by_pillow: read it as Pillow does, which gives up at the first damaged tag, as earlier versions did.
    """
    block = image.info.get("exif")
    orientation = None if by_pillow or not isinstance(block, bytes) else _orientation(block)
    if orientation is None:
        orientation = _orientation_by_pillow(image)
    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(block: bytes) -> int | None:
    """The orientation in a block of EXIF, of which no other tag is read; None if there is none of the usual type."""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    found = None
    try:
        if order is None:
            return None
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, start)
        for place in range(start + 2, start + 2 + ENTRY * entries, ENTRY):
            tag, kind, count = struct.unpack_from(f"{order}HHI", block, place)
            if tag == ExifTags.Base.Orientation and count == 1 and kind in VALUES:
                (found,) = struct.unpack_from(order + VALUES[kind], block, place + 8)
    except struct.error:  # the block is cut off
        pass
    return found


def _orientation_by_pillow(image: Image.Image) -> int:
    """The orientation of formats that have no such block, in XMP, or of an unusual type."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever other tags lead Pillow to
        return 1
