# The types of torch.from_numpy and Tensor.tolist are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# PyTorch declares some of its functions without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A sample of features that does not depend on the order, nor on the parts, in which they came."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcm_distill.core.randomness import uniform


@dataclass
class Sample:
    """At most `limit` feature vectors: those whose images drew the lowest numbers. Two can be added.

    Attributes:
        limit: how many are kept. features: float32 (n, D). ids: int64 (n,), of their images. draws: float32 (n,).
    """

    limit: int
    features: Tensor
    ids: Tensor
    draws: Tensor

    @classmethod
    def of(cls, features: Tensor, ids: Iterable[int], limit: int) -> "Sample":
        """A sample of features (N, D) of images with these distinct numbers."""
        numbers = torch.tensor(list(ids), dtype=torch.int64)
        draws = uniform(0, "metric-sample", 0, numbers.tolist())
        kept = _lowest(numbers, draws, limit)
        return cls(limit, features.float()[kept], numbers[kept], draws[kept])

    def __add__(self, other: "Sample") -> "Sample":
        ids, draws = torch.cat([self.ids, other.ids]), torch.cat([self.draws, other.draws])
        kept = _lowest(ids, draws, self.limit)
        ours, theirs = kept[kept < len(self.ids)], kept[kept >= len(self.ids)] - len(self.ids)
        features = self.features.new_empty(len(kept), self.features.shape[1])  # the only copy: samples are large
        torch.index_select(self.features, 0, ours, out=features[: len(ours)])
        torch.index_select(other.features, 0, theirs, out=features[len(ours) :])
        return Sample(self.limit, features, ids[kept], draws[kept])

    def in_order(self) -> Tensor:
        """The features in order of the images' numbers, (n, D): the same whatever the parts were."""
        return self.features[self.ids.argsort()]


def _lowest(ids: Tensor, draws: Tensor, limit: int) -> Tensor:
    """Where the `limit` lowest draws are, int64, rising."""
    lowest = np.lexsort([ids.numpy(), draws.numpy()])[:limit]
    return torch.from_numpy(np.sort(lowest))
