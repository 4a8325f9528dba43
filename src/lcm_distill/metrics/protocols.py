"""Named ways to measure images: file format, preprocessing, network and figures, as the field prints them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from lcm_distill import assets
from lcm_distill.core.errors import UserError
from lcm_distill.metrics import preprocessing
from lcm_distill.metrics.figures import CLIP_SCORE, CMMD, FD_DINOV2, FID, FRECHET_DISTANCE, KID, NEIGHBOURS
from lcm_distill.metrics.frechet import require_full_rank
from lcm_distill.metrics.interface import (
    JPEG_90,
    PNG,
    CaptionExtractor,
    Extractor,
    Figure,
    FileFormat,
    Prepare,
)
from lcm_distill.metrics.statistics import Statistics
from lcm_distill.shapes.network import ShapesExtractor

Weights = str | Path | None
Load = Callable[[Weights, torch.device], Extractor]

ALL = 10**9
"""A sample of every image there is."""
INCEPTION_FIGURES = (FID, KID, *NEIGHBOURS)


@dataclass(frozen=True)
class MetricProtocol:
    """One way to measure.

    Attributes:
        name: as configurations and tables call it.
        file_format: how generated images are stored before they are measured. None: any.
        prepare: an image to what the network takes.
        load: the network, from weights at a path, or from where its library keeps them.
        figures: what is reported.
        captions: whether captions are asked for.
        sample_size: how many feature vectors are kept, for figures that no moments tell.
    """

    name: str
    file_format: FileFormat | None
    prepare: Prepare
    load: Load
    figures: tuple[Figure, ...]
    captions: bool = False
    sample_size: int = 10_000


@dataclass(frozen=True)
class Opened:
    """A protocol with its network loaded."""

    protocol: MetricProtocol
    extractor: Extractor

    def features(self, prepared: Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
        """Features float32 (n, D), batch by batch, of images as the protocol's `prepare` leaves them."""
        images = iter(prepared)
        while batch := list(islice(images, batch_size)):
            yield self.extractor(torch.stack(batch))

    def statistics(self, features: Tensor, ids: Sequence[int], captions: Sequence[str] | None = None) -> Statistics:
        """Of features (N, D) of images with these distinct numbers and captions; those of all parts add up.

        Captions are looked at only where the protocol asks for them.
        """
        seen = None
        if self.protocol.captions and captions is not None and isinstance(self.extractor, CaptionExtractor):
            seen = self.extractor.captions(captions)
        return Statistics.of(features, ids, self.protocol.sample_size, seen)


def open_protocol(name: str, weights: str | Path | None = None, device: torch.device | str = "cpu") -> Opened:
    """The protocol called `name`, its network on `device`.

    Args:
        weights: the network's, where the protocol's loader finds them; unset, where its library keeps them.

    Raises:
        UserError: there is no such protocol, or the weights are not there or not what they should be.
    """
    protocol = find_protocol(name)
    return Opened(protocol, protocol.load(weights, torch.device(device)))


def find_protocol(name: str) -> MetricProtocol:
    """The protocol called `name`, without its network.

    Raises:
        UserError: there is none.
    """
    if name not in PROTOCOLS:
        raise UserError(f"metric protocol {name!r} is unknown: take one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def _shapes(weights: Weights, device: torch.device) -> Extractor:
    return ShapesExtractor(Path(weights) if weights else assets.FEATURES, device)


def _inception(centre: float) -> Load:
    def load(weights: Weights, device: torch.device) -> Extractor:
        from lcm_distill.metrics.inception import INCEPTION_2015, InceptionExtractor

        return InceptionExtractor(INCEPTION_2015.find(weights), device, centre)

    return load


def _clip(architecture: str, tag: str) -> Load:
    def load(weights: Weights, device: torch.device) -> Extractor:
        from lcm_distill.metrics.clip import ClipExtractor, find_clip

        return ClipExtractor(architecture, find_clip(architecture, tag, weights), device)

    return load


def _dinov2(weights: Weights, device: torch.device) -> Extractor:
    from lcm_distill.metrics.dinov2 import DINOV2_LARGE, Dinov2Extractor

    return Dinov2Extractor(str(weights or DINOV2_LARGE), device)


def measure(
    protocol: MetricProtocol, generated: Statistics, reference: Statistics | None, allow_few: bool = False
) -> dict[str, float]:
    """Every figure of the protocol that the statistics at hand can tell, by name.

    A reference of mean and covariance alone tells no figure that looks at features themselves.

    Args:
        allow_few: compute a Fréchet distance even if images are fewer than features are wide.

    Raises:
        UserError: there are too few images.
    """
    values = {}
    for figure in protocol.figures:
        sides = [generated, reference] if figure.compares else [generated]
        parts = [part for side in sides if side and (part := getattr(side, figure.part)) is not None]
        if len(parts) < len(sides):
            continue
        if figure.part == "moments" and not allow_few:
            for moments in parts:
                require_full_rank(moments)
        values[figure.name] = figure.number(*parts)
    return values


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        MetricProtocol("shapes", PNG, preprocessing.as_it_is, _shapes, (FRECHET_DISTANCE,)),
        MetricProtocol(
            "t2i-benchmark", JPEG_90, partial(preprocessing.square_bicubic, size=299), _inception(127.5),
            INCEPTION_FIGURES,
        ),
        MetricProtocol("gigagan", PNG, preprocessing.gigagan, _inception(128.0), INCEPTION_FIGURES),
        MetricProtocol("torch-fidelity", PNG, preprocessing.torch_fidelity, _inception(128.0), INCEPTION_FIGURES),
        MetricProtocol("pytorch-fid", PNG, preprocessing.pytorch_fid, _inception(127.5), INCEPTION_FIGURES),
        MetricProtocol(
            "fd-dinov2", None, partial(preprocessing.bicubic, size=224), _dinov2, (FD_DINOV2, *NEIGHBOURS),
        ),
        MetricProtocol(
            "cmmd", None, partial(preprocessing.square_bicubic, size=336), _clip("ViT-L-14-336-quickgelu", "openai"),
            (CMMD,), sample_size=ALL,
        ),
        MetricProtocol(
            "clip-vit-b-32", None, partial(preprocessing.clip, size=224), _clip("ViT-B-32-quickgelu", "openai"),
            (CLIP_SCORE,), captions=True,
        ),
        MetricProtocol(
            "clip-vit-g-14", None, partial(preprocessing.clip, size=224), _clip("ViT-g-14", "laion2b_s12b_b42k"),
            (CLIP_SCORE,), captions=True,
        ),
    )
}  # fmt: skip
"""By name."""
