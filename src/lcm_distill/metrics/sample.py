"""A sample of features that does not depend on the order, nor on the parts, in which they came."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcm_distill.diffusion.randomness import uniform


@dataclass
class Sample:
    """At most `limit` feature vectors: those whose pictures drew the lowest numbers. Two can be added.

    Attributes:
        limit: how many are kept. features: float32 (n, D). ids: int64 (n,), of their pictures. draws: float32 (n,).
    """

    limit: int
    features: Tensor
    ids: Tensor
    draws: Tensor

    @classmethod
    def of(cls, features: Tensor, ids: Iterable[int], limit: int) -> "Sample":
        """A sample of features (N, D) of pictures with these distinct numbers."""
        numbers = torch.tensor(list(ids), dtype=torch.int64)
        draws = uniform(0, "metric-sample", 0, numbers.tolist())
        kept = _lowest(numbers, draws, limit)
        return cls(limit, features.float()[kept], numbers[kept], draws[kept])

    def __add__(self, other: "Sample") -> "Sample":
        ids, draws = torch.cat([self.ids, other.ids]), torch.cat([self.draws, other.draws])
        kept = _lowest(ids, draws, self.limit)
        ours = kept < len(self.ids)
        features = self.features.new_empty(len(kept), self.features.shape[1])  # one copy: samples are large
        features[ours] = self.features[kept[ours]]
        features[~ours] = other.features[kept[~ours] - len(self.ids)]
        return Sample(self.limit, features, ids[kept], draws[kept])


def _lowest(ids: Tensor, draws: Tensor, limit: int) -> Tensor:
    """Where the `limit` lowest draws are, in order of the pictures' numbers."""
    lowest = np.lexsort([ids.numpy(), draws.numpy()])[:limit]
    return torch.from_numpy(lowest[np.argsort(ids.numpy()[lowest])])
