"""Does the metric network see in a picture what its caption says?"""

from collections.abc import Sequence

import torch
from torch import Tensor

CAPTION_ATTRIBUTES = ("shape", "colour")
"""What counts as seen: both together."""


def caption_hits(logits: dict[str, Tensor], labels: Sequence[dict[str, int]]) -> Tensor:
    """Whether shape and colour are both as labelled, bool (B,).

    Args:
        logits: (B, values) by attribute. labels: by picture, index of each attribute's value.
    """
    hits = [
        logits[name].argmax(dim=1) == torch.tensor([label[name] for label in labels]) for name in CAPTION_ATTRIBUTES
    ]
    return torch.stack(hits).all(dim=0)
