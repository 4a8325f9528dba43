"""FD-DINOv2, precision, recall, density and coverage as dgm-eval has them, by five neighbours (arXiv 2306.04675)."""

from functools import partial

import torch

from lcm_distill.metrics import preprocessing
from lcm_distill.metrics.interface import Extractor
from lcm_distill.metrics.metric_definitions import FD_DINOV2, FIFTH_NEIGHBOURS
from lcm_distill.metrics.protocol import MetricProtocol, Weights


def _load(weights: Weights, device: torch.device) -> Extractor:
    from lcm_distill.metrics.dinov2_extractor import DINOV2_LARGE, Dinov2Extractor

    return Dinov2Extractor(str(weights or DINOV2_LARGE), device)


DINOV2 = MetricProtocol(
    "fd-dinov2", None, partial(preprocessing.bicubic, size=224), _load, (FD_DINOV2, *FIFTH_NEIGHBOURS)
)  # fmt: skip
