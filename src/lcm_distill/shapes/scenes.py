"""`shapes`, the embedded default: captioned images of one coloured shape, rendered from a seed.

A stand-in for a photographic data set, not a sample of one. Image `index` under `seed` is always the same
image, so any slice of the set can be rendered on its own.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lcm_distill.core.randomness import philox
from lcm_distill.formats.images import round_to_uint8

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
COLOURS = {
    "red": (222, 52, 56),
    "orange": (245, 140, 38),
    "yellow": (250, 214, 60),
    "green": (64, 172, 88),
    "blue": (52, 112, 228),
    "purple": (138, 72, 196),
    "pink": (244, 134, 182),
}
BACKGROUNDS = {
    "cream": (248, 238, 218),
    "mint": (196, 232, 216),
    "lavender": (214, 206, 240),
    "slate": (112, 124, 140),
    "navy": (28, 40, 84),
    "charcoal": (46, 46, 50),
}
SIZES = {"small": 0.16, "medium": 0.22, "large": 0.29}  # radius over image width
POSITIONS = {  # centre of the shape over image width, from the middle: right, down
    "in the centre": (0.0, 0.0),
    "on the left": (-0.16, 0.0),
    "on the right": (0.16, 0.0),
    "at the top": (0.0, -0.16),
    "at the bottom": (0.0, 0.16),
    "at the top left": (-0.16, -0.16),
    "at the top right": (0.16, -0.16),
    "at the bottom left": (-0.16, 0.16),
    "at the bottom right": (0.16, 0.16),
}
TEMPLATES = (
    "a {size} {colour} {shape} {position} on a {background} background",
    "a {background} background with a {size} {colour} {shape} {position}",
)
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "position": tuple(POSITIONS),
    "background": tuple(BACKGROUNDS),
}
"""Every attribute a caption names, with its values in label order."""

SUPERSAMPLING = 4
JITTER = 0.02  # of the centre, over image width


@dataclass(frozen=True)
class Scene:
    """What an image shows, in words."""

    shape: str
    colour: str
    size: str
    position: str
    background: str

    def labels(self) -> tuple[int, ...]:
        """Index of each attribute's value, in the order of `ATTRIBUTES`."""
        return tuple(values.index(getattr(self, name)) for name, values in ATTRIBUTES.items())


def named_in(caption: str) -> dict[str, str]:
    """Values that a caption names, by attribute; the longest matching phrase counts ("top left", not "top")."""
    named = {name: [value for value in values if f" {value} " in f" {caption} "] for name, values in ATTRIBUTES.items()}
    return {name: max(values, key=len) for name, values in named.items() if values}


def scene_of(caption: str) -> Scene:
    """The scene that a full caption describes.

    Raises:
        ValueError: the caption names no value of some attribute.
    """
    named = named_in(caption)
    if unnamed := [name for name in ATTRIBUTES if name not in named]:
        raise ValueError(f"caption {caption!r} names no {unnamed[0]}")
    return Scene(**named)


def brief_caption(scene: Scene, seed: int, index: int) -> str:
    """A caption of image `index` that names the shape, and each other attribute half of the time.

    Attributes that it leaves out may have any value: such captions have many different images.
    """
    rng = philox((seed, index), (0, 0, 0, 1))  # apart from the image's
    size, colour, position, background = rng.random(4) < 0.5
    words = [
        "a",
        *([scene.size] if size else []),
        *([scene.colour] if colour else []),
        scene.shape,
        *([scene.position] if position else []),
        *([f"on a {scene.background} background"] if background else []),
    ]
    return " ".join(words)


def render_image(seed: int, index: int, width: int) -> tuple[Image.Image, str]:
    """Image `index` of the set under `seed`, RGB `width` x `width`, and its caption."""
    rng = philox((seed, index))
    scene = Scene(*(str(rng.choice(values)) for values in ATTRIBUTES.values()))
    caption = str(rng.choice(TEMPLATES)).format(**vars(scene))
    return render(scene, width, rng), caption


def render_images(seed: int, count: int, width: int) -> tuple[np.ndarray, list[str]]:
    """The first `count` images of the set under `seed`, uint8 (count, width, width, 3), and their captions."""
    images, captions = zip(*(render_image(seed, index, width) for index in range(count)), strict=True)
    return np.stack([np.asarray(image) for image in images]), list(captions)


def render(scene: Scene, width: int, rng: np.random.Generator) -> Image.Image:
    """Render a scene; what its caption leaves open (exact place, size, tilt, light) comes from `rng`."""
    right, down = POSITIONS[scene.position]
    centre = 0.5 + np.array([right, down]) + rng.uniform(-JITTER, JITTER, 2)
    radius = SIZES[scene.size] * rng.uniform(0.94, 1.06)
    tilt = rng.uniform(-0.2, 0.2)
    cover = _opacity(_silhouette(scene.shape, centre, radius, tilt, width))
    shadow = _silhouette(scene.shape, centre + 0.03, radius, tilt, width)
    shadow = _opacity(shadow.filter(ImageFilter.GaussianBlur(0.025 * width)))

    down_ramp = np.linspace(-1, 1, width, dtype=np.float32)[:, None]
    right_ramp = down_ramp.T
    backdrop = _lit(BACKGROUNDS[scene.background], -0.07 * down_ramp) * (1 - 0.3 * shadow)
    glow = -0.5 * ((down_ramp - 2 * centre[1] + 1) + (right_ramp - 2 * centre[0] + 1)) / (2 * radius)
    surface = _lit(COLOURS[scene.colour], 0.16 * glow)
    image = cover * surface + (1 - cover) * backdrop
    return Image.fromarray(round_to_uint8(image))


def _opacity(mask: Image.Image) -> np.ndarray:
    return np.asarray(mask, dtype=np.float32)[..., None] / 255


def _lit(colour: tuple[int, int, int], light: np.ndarray) -> np.ndarray:
    return np.asarray(colour, dtype=np.float32) * (1 + light[..., None])


def _silhouette(shape: str, centre: np.ndarray, radius: float, tilt: float, width: int) -> Image.Image:
    side = width * SUPERSAMPLING
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    pen.polygon(_place(OUTLINES[shape], centre, radius, tilt, side), fill=255)
    if shape == "ring":
        pen.polygon(_place(0.52 * OUTLINES["circle"], centre, radius, tilt, side), fill=0)
    return canvas.resize((width, width), Image.Resampling.BOX)


def _place(outline: np.ndarray, centre: np.ndarray, radius: float, tilt: float, side: int) -> list[tuple[float, float]]:
    turn = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    return [(float(x), float(y)) for x, y in side * (centre + radius * outline @ turn.T)]


def _round(points: int = 72) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _corners(count: int, first: float, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
    angle = first + np.arange(count) * 2 * np.pi / count
    return np.resize(radii, count)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _heart(points: int = 72) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    across = 16 * np.sin(t) ** 3
    up = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([across, -up - 2.5], axis=1) / 15.5


OUTLINES = {
    "circle": _round(),
    "ring": _round(),
    "square": _corners(4, np.pi / 4, (1.12,)),
    "triangle": _corners(3, -np.pi / 2, (1.12,)),
    "star": _corners(10, -np.pi / 2, (1.12, 0.5)),
    "heart": _heart(),
}
