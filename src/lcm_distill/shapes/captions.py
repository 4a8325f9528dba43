"""Captions of `shapes`: the labels they name, and whether the feature network sees them in an image."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lcm_distill.shapes.scenes import ATTRIBUTES, TEMPLATES, named_in

CAPTION_ATTRIBUTES = ("shape", "colour")
"""Attributes that an image must show as its caption names them."""


def labels_of(caption: str) -> dict[str, int]:
    """Index of the value of each attribute that a caption names."""
    return {name: ATTRIBUTES[name].index(value) for name, value in named_in(caption).items()}


def refuse_caption(caption: str) -> str | None:
    """Why caption accuracy is undefined for a caption; None where it is defined."""
    return None if "shape" in named_in(caption) else "names no shape of `shapes`"


def unknown_words(caption: str) -> list[str]:
    """Words of a caption that no caption of `shapes` has, each once, whatever their case and punctuation."""
    words = " ".join([*TEMPLATES, *(value for values in ATTRIBUTES.values() for value in values)])
    known = set(re.findall(r"\w+", re.sub(r"\{\w+\}", " ", words)))
    return list(dict.fromkeys(word for word in re.findall(r"\w+", caption) if word.lower() not in known))


def caption_hits(logits: Mapping[str, Tensor], labels: Sequence[Mapping[str, int]]) -> Tensor:
    """Whether images show shape and colour as labelled, bool (B,); an attribute without a label counts as shown.

    Args:
        logits: (B, values) by attribute. labels: by image, index of the value of each attribute that is named.
    """
    hits: list[Tensor] = []
    for name in CAPTION_ATTRIBUTES:
        predicted = logits[name].argmax(dim=1)
        labelled = torch.tensor([label.get(name, -1) for label in labels])
        hits.append((predicted == labelled) | (labelled == -1))
    return torch.stack(hits).all(dim=0)
