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
        return cls(limit, features.float(), numbers, uniform(0, "metric-sample", 0, numbers.tolist()))._cut()

    def __add__(self, other: "Sample") -> "Sample":
        return Sample(
            self.limit,
            torch.cat([self.features, other.features]),
            torch.cat([self.ids, other.ids]),
            torch.cat([self.draws, other.draws]),
        )._cut()

    def _cut(self) -> "Sample":
        """The same without what is beyond the limit, in order of the pictures' numbers."""
        lowest = np.lexsort([self.ids.numpy(), self.draws.numpy()])[: self.limit]
        kept = torch.from_numpy(lowest[np.argsort(self.ids.numpy()[lowest])])
        return Sample(self.limit, self.features[kept], self.ids[kept], self.draws[kept])
