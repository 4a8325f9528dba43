"""From an image file's bytes to the square arrays of pixels that are encoded."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lcm_distill.data.sources.interface import UnusableImage


def decode(content: bytes | UnusableImage, min_size: int) -> Image.Image:
    """The upright RGB image in a file's bytes, or in what a source gave instead of them.

    Raises:
        UnusableImage: there are no bytes, they are unreadable or truncated, or the shorter side is below `min_size`
            pixels.
    """
    if isinstance(content, UnusableImage):
        raise content
    try:
        with Image.open(BytesIO(content)) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else f"unreadable image: {error}"
        raise UnusableImage(reason) from error
    if min(image.size) < min_size:
        width, height = image.size
        raise UnusableImage(f"too small: {width}x{height}, shorter side below {min_size}")
    return _as_rgb(image)


def square(image: Image.Image, resolution: int) -> np.ndarray:
    """The image resized by its short side (bicubic, antialiased), its centre cropped: uint8 (H, W, 3), RGB."""
    return np.asarray(ImageOps.fit(image, (resolution, resolution), Image.Resampling.BICUBIC))


def _as_rgb(image: Image.Image) -> Image.Image:
    """RGB with transparency laid over white, and 16-bit greys scaled rather than cut off."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")
