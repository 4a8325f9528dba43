"""The form of every training's loss: a sum of named terms, each of which is recorded."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lcm_distill.data.cache.loader import Batch

Terms = Mapping[str, Tensor]
"""Means over a batch's samples, scalars by their columns in the records of steps. Their sum is the loss."""
Loss = Callable[[int, Batch], Terms]
"""(step, batch) -> the terms of the batch's loss, which depend on nothing but the two."""


def total(terms: Terms) -> Tensor:
    """The loss, a scalar."""
    return torch.stack(list(terms.values())).sum()
