"""CMMD (arXiv 2401.09603) and CLIP scores (arXiv 2104.08718)."""

from functools import partial

import torch

from lcm_distill.metrics import preprocessing
from lcm_distill.metrics.interface import Extractor
from lcm_distill.metrics.metric_definitions import CLIP_SCORE, CMMD
from lcm_distill.metrics.protocol import ALL_IMAGES, LoadExtractor, MetricProtocol, Weights


def _load(architecture: str, tag: str, weights: Weights, device: torch.device) -> Extractor:
    from lcm_distill.metrics.clip_extractor import ClipExtractor, find_clip

    return ClipExtractor(architecture, find_clip(architecture, tag, weights), device)


def _clip_score(name: str, load: LoadExtractor) -> MetricProtocol:
    return MetricProtocol(name, None, partial(preprocessing.clip, size=224), load, (CLIP_SCORE,))


CLIP_MMD = MetricProtocol(
    "cmmd", None, partial(preprocessing.square_bicubic, size=336), partial(_load, "ViT-L-14-336-quickgelu", "openai"),
    (CMMD,), sample_size=ALL_IMAGES,
)  # fmt: skip
CLIP_VIT_B_32 = _clip_score("clip-vit-b-32", partial(_load, "ViT-B-32-quickgelu", "openai"))
CLIP_VIT_G_14 = _clip_score("clip-vit-g-14", partial(_load, "ViT-g-14", "laion2b_s12b_b42k"))
