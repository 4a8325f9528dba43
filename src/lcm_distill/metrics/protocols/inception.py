"""FID, KID, MIND, precision, recall, density and coverage on Inception v3, under four preprocessings."""

from collections.abc import Callable
from functools import partial

import torch

from lcm_distill.metrics import preprocessing
from lcm_distill.metrics.interface import JPEG_90, PNG, Extractor, FileFormat, Prepare
from lcm_distill.metrics.metric_definitions import FID, KID, MIND, NEIGHBOURS
from lcm_distill.metrics.protocol import MetricProtocol, Weights

HALF_RANGE, TENSORFLOW = 127.5, 128.0
"""Centres: images enter the network as x / centre - 1."""


def _load(centre: float, weights: Weights, device: torch.device) -> Extractor:
    from lcm_distill.metrics.inception_extractor import INCEPTION_2015, InceptionExtractor

    return InceptionExtractor(INCEPTION_2015.find(weights), device, centre)


def _protocol(name: str, file_format: FileFormat, prepare: Prepare, centre: float) -> MetricProtocol:
    load: Callable[[Weights, torch.device], Extractor] = partial(_load, centre)
    return MetricProtocol(name, file_format, prepare, load, (FID, KID, MIND, *NEIGHBOURS))


T2I_BENCHMARK = _protocol(
    "t2i-benchmark", JPEG_90, partial(preprocessing.square_bicubic, size=preprocessing.INCEPTION_SIZE), HALF_RANGE
)
GIGAGAN = _protocol("gigagan", PNG, preprocessing.gigagan, TENSORFLOW)
TORCH_FIDELITY = _protocol("torch-fidelity", PNG, preprocessing.torch_fidelity, TENSORFLOW)
PYTORCH_FID = _protocol("pytorch-fid", PNG, preprocessing.pytorch_fid, HALF_RANGE)
