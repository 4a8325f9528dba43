"""Decoding image files and cropping them to the squares that are encoded."""

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lcm_distill.core.images import open_image, round_to_uint8
from lcm_distill.data.sources.interface import UnusableImage


def decode(content: bytes | UnusableImage, min_size: int) -> Image.Image:
    """Decode an image file to RGB, rotated as its EXIF orientation asks; of an animation, its first frame.

    Args:
        content: the file's bytes, or what a source returned instead of them.
        min_size: least length of the shorter side, in pixels.

    Raises:
        UnusableImage: there are no bytes, they are of no format of `IMAGE_FORMATS`, unreadable or truncated, or the
            image is too small or of more pixels than Pillow takes for an attack.
    """
    if isinstance(content, UnusableImage):
        raise content
    try:
        with open_image(content) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
            image = _as_rgb(image)
    except UnidentifiedImageError as error:
        raise UnusableImage("not an image") from error
    except Exception as error:  # Pillow raises whatever malformed bytes lead it to: struct.error, TypeError ...
        raise UnusableImage(f"unreadable image: {str(error) or type(error).__name__}") from error
    if min(image.size) < min_size:
        width, height = image.size
        raise UnusableImage(f"too small: {width}x{height}, shorter side below {min_size}")
    return image


def resize_and_crop(image: Image.Image, resolution: int) -> np.ndarray:
    """Resize the shorter side to `resolution` (bicubic, antialiased) and crop the centre: uint8 (H, W, 3), RGB."""
    return np.asarray(ImageOps.fit(image, (resolution, resolution), Image.Resampling.BICUBIC))


def _as_rgb(image: Image.Image) -> Image.Image:
    """RGB; transparency is composited over white, and 16-bit grey values are scaled rather than clipped."""
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range nothing tells")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32) / 257
        if grey.size and not 0 <= grey.min() <= grey.max() <= 255:
            raise ValueError("pixels have more than 16 bits")
        return Image.fromarray(round_to_uint8(grey)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")
