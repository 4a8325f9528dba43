"""Does the metric network see in an image what its caption says?"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

CAPTION_ATTRIBUTES = ("shape", "colour")
"""What is looked for: both, where a caption names both."""


def caption_hits(logits: Mapping[str, Tensor], labels: Sequence[Mapping[str, int]]) -> Tensor:
    """Whether shape and colour are as labelled, as far as they are, bool (B,).

    Args:
        logits: (B, values) by attribute. labels: by image, index of the value of each attribute that is named.
    """
    hits = []
    for name in CAPTION_ATTRIBUTES:
        seen = logits[name].argmax(dim=1)
        named = torch.tensor([label.get(name, -1) for label in labels])
        hits.append((seen == named) | (named == -1))
    return torch.stack(hits).all(dim=0)
