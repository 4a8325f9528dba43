"""From a picture file's bytes to the square array of pixels that is encoded."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lcm_distill.data.records import UnusablePicture


def decode_square(content: bytes, resolution: int, min_size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode, resize by the short side (bicubic, antialiased) and crop the centre.

    Returns:
        uint8 (resolution, resolution, 3), RGB, and the (width, height) in the file.

    Raises:
        UnusablePicture: the picture is unreadable, truncated or too small.
    """
    try:
        with Image.open(BytesIO(content)) as file:
            picture = ImageOps.exif_transpose(file)
            picture.load()
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else f"unreadable picture: {error}"
        raise UnusablePicture(reason) from error
    size = picture.size
    if min(size) < min_size:
        raise UnusablePicture(f"too small: {size[0]}x{size[1]}, shorter side below {min_size}")
    square = ImageOps.fit(_as_rgb(picture), (resolution, resolution), Image.Resampling.BICUBIC)
    return np.asarray(square), size


def _as_rgb(picture: Image.Image) -> Image.Image:
    """RGB with transparency laid over white, and 16-bit greys scaled rather than cut off."""
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.float32) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return picture.convert("RGB")
