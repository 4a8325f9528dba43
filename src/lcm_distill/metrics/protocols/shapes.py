"""Fréchet distance and caption accuracy of the `shapes` default, by the small network that ships."""

from pathlib import Path

import torch

from lcm_distill import assets
from lcm_distill.metrics import preprocessing
from lcm_distill.metrics.interface import PNG, Extractor
from lcm_distill.metrics.metric_definitions import CAPTION_ACCURACY, FRECHET_DISTANCE
from lcm_distill.metrics.protocol import MetricProtocol, Weights
from lcm_distill.shapes.captions import refuse_caption


def _load(weights: Weights, device: torch.device) -> Extractor:
    from lcm_distill.shapes.network import ShapesExtractor

    return ShapesExtractor(Path(weights) if weights else assets.FEATURES, device)


SHAPES = MetricProtocol(
    "shapes", PNG, preprocessing.unchanged, _load, (FRECHET_DISTANCE, CAPTION_ACCURACY),
    allows_few=True, refuse_caption=refuse_caption,
)  # fmt: skip
