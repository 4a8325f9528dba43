# Pillow's colour management has partial types, in some releases wrong ones.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false
"""Colours of images with an ICC profile, as sRGB."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

BASE = {"RGB": "RGB", "RGBA": "RGB", "L": "L", "LA": "L", "CMYK": "CMYK"}
"""The mode without transparency."""
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B")
"""Modes of grey values of 16 bits."""
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""The mode that profiles of a colour space are for."""
ROUNDING = 1
"""By how much values of 0 to 255 differ in the tables of two profiles of the same colours."""


def to_srgb(image: Image.Image, by_name: bool = False, exact_grey: bool = True) -> tuple[Image.Image, str | None]:
    """An image with the colours of sRGB, and a note about its ICC profile; the same image and None without one.

    A profile that changes no colour by more than `ROUNDING` is sRGB itself: it changes nothing, and leaves no note. One
    that cannot be applied, because it is damaged or meant for other pixels, is ignored as if it were not there; the
    note says so.

    Args:
        image: decoded, of any mode.
        by_name: take a profile for sRGB if its description contains that name, as earlier versions did.
        exact_grey: convert grey values of 16 bits too, and all of grey by the profile's curve itself. Earlier versions
            ignored profiles of the former and took a table of the curve, which was up to 10 of 255 too dark.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        name = " ".join(ImageCms.getProfileDescription(source).split())
        if by_name and "srgb" in name.lower():
            return image, None
        mode = SPACES.get(source.profile.xcolor_space.strip(), "")
        exact = exact_grey and mode == "L"
        if not by_name and _changes_nothing(profile, mode, exact):
            return image, None
        colours = _unpacked(image)
        if BASE.get(colours.mode) != mode and not (exact and image.mode in SIXTEEN_BITS):
            return image, f"ICC profile {name!r} is not for {image.mode} pixels: ignored"
        return _converted(colours, mode, source, exact), f"converted from ICC profile {name!r}"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return image, "damaged ICC profile: ignored"


@lru_cache(maxsize=64)
def _changes_nothing(profile: bytes, mode: str, exact: bool) -> bool:
    """Whether pixels of `mode` have the same values in sRGB, found by converting some of all colours."""
    if mode not in ("RGB", "L"):
        return False
    values = np.arange(0, 256, 17 if mode == "RGB" else 1, dtype=np.uint8)
    axes = np.meshgrid(*[values] * len(mode), indexing="ij")
    probe = Image.fromarray(np.stack(axes, -1).reshape(1, -1, 3) if mode == "RGB" else axes[0][None])
    shown = _converted(probe, mode, ImageCms.ImageCmsProfile(BytesIO(profile)), exact)
    difference = np.asarray(shown, np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    return bool(np.abs(difference).max() <= ROUNDING)


def _unpacked(image: Image.Image) -> Image.Image:
    """Pixels that a profile can be applied to, in place of a palette."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in ("RGB", "L") and image.has_transparency_data:
        return image.convert("RGBA" if image.mode == "RGB" else "LA")
    return image


def _converted(image: Image.Image, mode: str, source: ImageCms.ImageCmsProfile, exact: bool) -> Image.Image:
    """RGB, or RGBA where the image has transparency; `exact` takes no table in place of the profile's curves."""
    deep = image.mode in SIXTEEN_BITS
    opaque = image if deep or image.mode == mode else image.convert(mode)
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    converted = ImageCms.profileToProfile(
        opaque, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
        flags=flags | ImageCms.Flags.NOOPTIMIZE if exact else flags,
    )  # fmt: skip
    assert converted is not None
    if deep and (transparent := image.info.get("transparency")) is not None:
        converted.putalpha(Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8)))
    elif not deep and image.mode != mode:
        converted.putalpha(image.getchannel("A"))
    return converted
