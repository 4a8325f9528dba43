"""The form all figures share: images become features, features become statistics, statistics a number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

Prepare = Callable[[Image.Image], Tensor]
"""An image of any size to what an extractor takes: (3, H, W), uint8 or float32, values 0 to 255. Runs on the CPU,
beside the network."""


class Extractor(Protocol):
    """A network that turns images into features.

    Attributes:
        name: what it is called in a row of figures. sha256: hex digest of its weights' file. width: of its features.
    """

    name: str
    sha256: str
    width: int

    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 (B, width), on the CPU, of prepared images (B, 3, H, W), values 0 to 255."""
        ...


@runtime_checkable
class CaptionExtractor(Protocol):
    """An extractor that sees captions in the same space."""

    def captions(self, captions: Sequence[str]) -> Tensor:
        """Features float32 (B, width) of captions, on the CPU."""
        ...


@dataclass(frozen=True)
class Figure:
    """A number that is computed from statistics.

    Attributes:
        name: as in `metrics.parquet`.
        part: what it reads of `Statistics`: moments, features or cosines.
        number: of that part of the generated images' and the reference's statistics, in this order.
        compares: whether it has a reference; without one, `number` takes the generated images' part alone.
    """

    name: str
    part: Literal["moments", "features", "cosines"]
    number: Callable[..., float]
    compares: bool = True


@dataclass(frozen=True)
class FileFormat:
    """How a generated image is stored before it is measured, as that changes figures.

    Attributes:
        suffix: of the file's name. format: Pillow's name of it. quality: of a JPEG.
    """

    suffix: str
    format: str
    quality: int | None = None


PNG = FileFormat(".png", "PNG")
JPEG_90 = FileFormat(".jpeg", "JPEG", 90)
