"""From a picture file's bytes to the square arrays of pixels that are encoded."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lcm_distill.data.records import UnusablePicture


def decode(content: bytes | UnusablePicture, min_size: int) -> Image.Image:
    """The upright RGB picture in a file's bytes, or in what a source gave instead of them.

    Raises:
        UnusablePicture: there are no bytes, they are unreadable or truncated, or the shorter side is below `min_size`
            pixels.
    """
    if isinstance(content, UnusablePicture):
        raise content
    try:
        with Image.open(BytesIO(content)) as file:
            picture = ImageOps.exif_transpose(file)
            picture.load()
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else f"unreadable picture: {error}"
        raise UnusablePicture(reason) from error
    if min(picture.size) < min_size:
        width, height = picture.size
        raise UnusablePicture(f"too small: {width}x{height}, shorter side below {min_size}")
    return _as_rgb(picture)


def square(picture: Image.Image, resolution: int) -> np.ndarray:
    """The picture resized by its short side (bicubic, antialiased), its centre cropped: uint8 (H, W, 3), RGB."""
    return np.asarray(ImageOps.fit(picture, (resolution, resolution), Image.Resampling.BICUBIC))


def _as_rgb(picture: Image.Image) -> Image.Image:
    """RGB with transparency laid over white, and 16-bit greys scaled rather than cut off."""
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.float32) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return picture.convert("RGB")
