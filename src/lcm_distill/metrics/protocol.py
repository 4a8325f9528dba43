# PyTorch declares some of its functions without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A metric protocol: file format, preprocessing, feature network and figures, as published figures are computed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from lcm_distill.core.errors import DataError
from lcm_distill.metrics.frechet import require_full_rank
from lcm_distill.metrics.interface import CaptionScorer, Extractor, Figure, FileFormat, Prepare
from lcm_distill.metrics.statistics import Statistics

Weights = str | Path | None
"""A file or folder of weights, or a name on a hub; None: where the network's library keeps them."""
LoadExtractor = Callable[[Weights, torch.device], Extractor]

ALL_IMAGES = 10**9
"""Sample size for figures that are computed from the features of every image."""


def accept_caption(caption: str) -> str | None:
    """Accepts every caption."""
    del caption
    return None


@dataclass(frozen=True)
class MetricProtocol:
    """One way to measure generated images.

    Attributes:
        name: in configurations and tables.
        file_format: how generated images are stored before they are measured. None: any format.
        prepare: preprocessing of one image.
        load: opens the feature network; it imports the network's library when it is called.
        figures: computed in this order.
        sample_size: feature vectors kept at most, for figures that cannot be computed from moments.
        allows_few: whether a Fréchet distance may be computed from fewer images than features have dimensions, as is
            sound only where figures compare with others of the same number of images. No number is too few then; a
            warning says where there are few.
        refuse_caption: why a caption cannot be measured, such as `names no shape`; None where it can.
    """

    name: str
    file_format: FileFormat | None
    prepare: Prepare
    load: LoadExtractor
    figures: tuple[Figure, ...]
    sample_size: int = 10_000
    allows_few: bool = False
    refuse_caption: Callable[[str], str | None] = accept_caption

    @property
    def compares(self) -> bool:
        """Whether any figure needs a reference."""
        return any(figure.compares for figure in self.figures)

    @property
    def scores_captions(self) -> bool:
        """Whether any figure is computed from caption scores; the network is a `CaptionScorer` then."""
        return any(figure.part == "caption_scores" for figure in self.figures)

    @property
    def frechet_figure(self) -> Figure | None:
        """The figure that is computed from mean and covariance."""
        return next((figure for figure in self.figures if figure.part == "moments"), None)

    def warning(self, metric: str, images: int, real: int | None = None) -> str | None:
        """Why a figure of so many images does not compare with published ones; None where it does.

        Args:
            real: number of real images that they are compared with; None where it is not known.
        """
        figure = next((figure for figure in self.figures if figure.name == metric), None)
        if figure is None:
            return None
        few = ["few images"] if images < figure.enough_images else []
        if figure.compares and real is not None and real < figure.enough_images:
            few.append(f"few real images ({real:,})")
        return f"{' and '.join(few)}, {figure.enough_images:,} are usual" if few else None

    def minimum_images(self, width: int) -> int:
        """Fewest images that the figures can be computed from.

        Args:
            width: dimensions of the features; a covariance has full rank from `width + 1` images on.
        """
        if self.frechet_figure is None:
            return 1
        return 2 if self.allows_few else width + 1


@dataclass(frozen=True)
class OpenedProtocol:
    """A protocol with its feature network loaded."""

    protocol: MetricProtocol
    extractor: Extractor

    def features(self, prepared: Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
        """Features float32 (n, D), batch by batch, of images as the protocol's `prepare` returns them.

        Raises:
            DataError: they are not finite, as the network's weights are not.
        """
        images = iter(prepared)
        while batch := list(islice(images, batch_size)):
            yield self._finite(self.extractor(torch.stack(batch)))

    def _finite(self, features: Tensor) -> Tensor:
        if not features.isfinite().all():
            raise DataError(
                f"{self.extractor.name} gives features that are not finite: its weights (SHA-256 "
                f"{self.extractor.sha256[:12]}) are damaged: set evaluate.weights.{self.protocol.name} to a copy that "
                "was not"
            )
        return features

    def statistics(self, features: Tensor, ids: Sequence[int]) -> Statistics:
        """Of features (N, D) of images with distinct ids."""
        return Statistics.of(features, ids, self.protocol.sample_size)

    def caption_scores(self, features: Tensor, captions: Sequence[str]) -> list[float] | list[None]:
        """A score for each image with these features (N, D); None for each where the protocol scores no captions."""
        if not self.protocol.scores_captions:
            return [None] * len(captions)
        assert isinstance(self.extractor, CaptionScorer)
        scores = self.extractor.caption_scores(features, captions)
        return cast(list[float], scores.tolist())  # pyright: ignore[reportUnknownMemberType]


def measure(protocol: MetricProtocol, generated: Statistics, reference: Statistics | None) -> dict[str, float]:
    """Figures by name, as far as the statistics suffice.

    A reference of mean and covariance alone suffices for no figure that is computed from features.

    Raises:
        UserError: there are too few images.
    """
    values: dict[str, float] = {}
    for figure in protocol.figures:
        sides = [generated, reference] if figure.compares else [generated]
        parts = [part for side in sides if side and (part := getattr(side, figure.part)) is not None]
        if len(parts) < len(sides):
            continue
        if figure.part == "moments" and not protocol.allows_few:
            for moments in parts:
                require_full_rank(moments)
        values[figure.name] = figure.compute(*parts)
    return values
