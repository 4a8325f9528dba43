"""The form that all metrics share: images become features, features become statistics, statistics become figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

Prepare = Callable[[Image.Image], Tensor]
"""Preprocessing: an image of any size to what an extractor takes, (3, H, W), uint8 or float32, values 0 to 255. Runs on
the CPU, in parallel with the network."""


class Extractor(Protocol):
    """A feature network: images to feature vectors.

    Attributes:
        name: written beside every figure. sha256: hex digest of its weights' file. width: dimensions of its features.
    """

    name: str
    sha256: str
    width: int

    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 (B, width), on the CPU, of prepared images (B, 3, H, W), values 0 to 255."""
        ...


@runtime_checkable
class CaptionScorer(Protocol):
    """An extractor that also scores how well an image shows what its caption says."""

    def caption_scores(self, features: Tensor, captions: Sequence[str]) -> Tensor:
        """Scores float64 (B,), on the CPU, of images with features float32 (B, width) and their captions."""
        ...


@dataclass(frozen=True)
class Figure:
    """A number that is computed from statistics.

    Attributes:
        name: as in the column `metric` of `metrics.parquet`; `metrics.figure_styles` says how it is shown.
        part: what of `Statistics` it is computed from.
        compute: from that part of the generated images' and of the reference's statistics, in this order.
        compares: whether it needs a reference; without one, `compute` takes the generated images' part alone.
        enough_images: fewer give another value on average, so that published figures do not compare. 0: any number.
    """

    name: str
    part: Literal["moments", "features", "caption_scores"]
    compute: Callable[..., float]
    compares: bool = True
    enough_images: int = 0


@dataclass(frozen=True)
class FileFormat:
    """How a generated image is stored before it is measured, since compression changes figures.

    Attributes:
        suffix: of the file's name. format: Pillow's name of the format. quality: of a JPEG, 1 to 100.
    """

    suffix: str
    format: str
    quality: int | None = None


PNG = FileFormat(".png", "PNG")
JPEG_90 = FileFormat(".jpeg", "JPEG", 90)
