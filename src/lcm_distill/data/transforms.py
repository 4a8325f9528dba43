"""Decoding image files and cropping them to the squares that are encoded."""

import re

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lcm_distill.core.errors import one_line
from lcm_distill.formats.colour import to_srgb
from lcm_distill.formats.images import UnusableImage, open_image, round_to_uint8
from lcm_distill.formats.orientation import upright

TRANSFORM = 6
"""Version of what an image file becomes; a cache keeps the one that it was begun with. 1 ignored colour profiles and
cropped fractions of a pixel, 2 ignored profiles with sRGB in their name, 3 the transparent colour of PNG files whose
samples have not 8 bits, 4 the orientation after a damaged EXIF tag, 5 profiles of grey values of 16 bits."""
MAX_RATIO = 32
"""Longer side over shorter side beyond which only the middle of an image is resized, as a strip would fill memory."""
GREY_STEPS = {"L;2": 85, "L;4": 17}
"""By which Pillow multiplies the grey values of PNG files with less than 8 bits."""
CONVERTED = "converted"
"""Key of a decoded image's `info` that says which colours were converted."""

_NUMBER = re.compile(r"\d+")


def decode(content: bytes | UnusableImage, min_size: int, version: int = TRANSFORM) -> Image.Image:
    """Decode an image file to sRGB, rotated as its EXIF orientation asks; of an animation, its first frame.

    Args:
        content: the file's bytes, or what a source returned instead of them.
        min_size: least length of the shorter side, in pixels.
        version: 1 takes all values for sRGB, whatever colour profile the file has; 2 those with a profile of that name;
            up to 3 no transparent colour is found among samples of 2, 4 or 16 bits; up to 4 no orientation after a
            damaged EXIF tag; up to 5 grey values of 16 bits keep theirs whatever their profile, and those of 8 bits are
            converted by a coarse table.

    Returns:
        RGB; where colours were converted from those of an ICC profile, `info[CONVERTED]` says so.

    Raises:
        UnusableImage: there are no bytes, they are of no format of `IMAGE_FORMATS`, unreadable or truncated, or the
            image is too small or of more pixels than Pillow takes for an attack.
    """
    if isinstance(content, UnusableImage):
        raise content
    try:
        with open_image(content) as file:
            _scale_transparent_colour(file, version)
            file.load()
            image = upright(file, by_pillow=version <= 4)
            image, note = (image, None) if version == 1 else to_srgb(image, version == 2, version > 5)
            image = _as_rgb(image, version)
            image.info = {} if note is None else {CONVERTED: note}
    except UnusableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnusableImage("not an image") from error
    except Exception as error:  # Pillow raises whatever malformed bytes lead it to: struct.error, TypeError ...
        # Without its numbers, such as that of bytes that are left, a reason is the same for all that have it.
        raise UnusableImage(f"unreadable image: {_NUMBER.sub('N', one_line(error))}") from error
    if min(image.size) < min_size:
        width, height = image.size
        raise UnusableImage(f"too small: {width}x{height}, shorter side below {min_size}")
    return image


def resize_and_crop(image: Image.Image, resolution: int, version: int = TRANSFORM) -> np.ndarray:
    """Resize the shorter side to `resolution` (bicubic, antialiased) and crop the centre: uint8 (H, W, 3), RGB.

    The crop is of whole pixels, as that of torchvision's `Resize` and `CenterCrop`: an image whose shorter side is
    `resolution` already keeps its pixels. Of an image longer than `MAX_RATIO` times its shorter side, the middle of
    that length is taken first.

    Args:
        version: 1 crops fractions of a pixel where the difference of the sides is odd.
    """
    if version == 1:
        return np.asarray(ImageOps.fit(image, (resolution, resolution), Image.Resampling.BICUBIC))
    image = _centre(image, *(min(side, MAX_RATIO * min(image.size)) for side in image.size))
    short = min(image.size)
    width, height = (int(resolution * side / short) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(_centre(resized, resolution, resolution))


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of an image, in whole pixels."""
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _scale_transparent_colour(file: Image.Image, version: int) -> None:
    """Make the transparent colour of a PNG file, which Pillow leaves as it is, one of the pixels that it becomes."""
    colour, tiles = file.info.get("transparency"), getattr(file, "tile", [])
    if version <= 3 or colour is None or not tiles:
        return
    mode = tiles[0][3]
    if mode in GREY_STEPS:
        file.info["transparency"] = colour * GREY_STEPS[mode]
    elif mode == "RGB;16B":
        file.info["transparency"] = tuple(value >> 8 for value in colour)


def _as_rgb(image: Image.Image, version: int) -> Image.Image:
    """RGB; transparency is composited over white, and 16-bit grey values are scaled rather than clipped."""
    if image.mode == "F":
        raise UnusableImage("unreadable image: pixels are floating-point numbers, whose range nothing tells")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        grey = values.astype(np.float32) / 257
        if version > 3 and (transparent := image.info.get("transparency")) is not None:
            grey[values == transparent] = 255
        if grey.size and not 0 <= grey.min() <= grey.max() <= 255:
            raise UnusableImage("unreadable image: pixels have more than 16 bits")
        return Image.fromarray(round_to_uint8(grey)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")
