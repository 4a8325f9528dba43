"""Batches for training: a global shuffle over one cache or several that any step can be asked for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lcm_distill.data.reader import FieldReader
from lcm_distill.diffusion.randomness import permutation


@dataclass(frozen=True)
class Batch:
    """Samples of one step.

    Attributes:
        rows: (B,), the samples' rows in the cache, which address their randomness.
        latents: (B, C, h, w), float16. captions: (B, L, width), float16.
    """

    rows: np.ndarray
    latents: Tensor
    captions: Tensor

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Latents and captions on a device, float32; they travel as the float16 they are stored as.

        The copy is a blocking one: the memory it reads is used again as soon as nobody holds the batch.
        """
        return self.latents.to(device).float(), self.captions.to(device).float()


class Batches(ABC):
    """A batch a step; while a batch is used the next one is read."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "next-batch")
        self._next: tuple[int, Future[Batch]] | None = None

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        ahead = self._next
        batch = ahead[1].result() if ahead and ahead[0] == step else self._read(step)
        self._next = step + 1, self._thread.submit(self._read, step + 1)
        return batch

    @abstractmethod
    def _read(self, step: int) -> Batch: ...


class ShuffledBatches(Batches):
    """Every sample once an epoch, in an order that depends on (seed, epoch) alone.

    A batch is a function of its step, so there is no position to save. A batch at the seam of two epochs takes
    from both.

    Args:
        latents, captions: readers of the two fields.
        rows, caption_rows: for each sample that may be drawn, its row in either field.
    """

    def __init__(
        self,
        latents: FieldReader,
        captions: FieldReader,
        rows: np.ndarray,
        caption_rows: np.ndarray,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.latents, self.captions = latents, captions
        self.rows, self.caption_rows = rows, caption_rows
        self.batch_size = batch_size
        # Two epochs are alive at a seam.
        self._order = lru_cache(maxsize=2)(lambda epoch: permutation(seed, "batches", epoch, len(rows)))

    def _read(self, step: int) -> Batch:
        return self.read(np.arange(step * self.batch_size, (step + 1) * self.batch_size))

    def read(self, places: np.ndarray) -> Batch:
        """The samples at these places of the endless sequence of epochs, counted from 0."""
        epochs, offsets = np.divmod(places, len(self.rows))
        chosen = np.concatenate([self._order(int(epoch))[offsets[epochs == epoch]] for epoch in np.unique(epochs)])
        rows, caption_rows = self.rows[chosen], self.caption_rows[chosen]
        return Batch(rows, torch.from_numpy(self.latents[rows]), torch.from_numpy(self.captions[caption_rows]))


class MixedBatches(Batches):
    """Samples of several caches, each with its share; each cache goes through epochs of its own.

    Shares hold at every moment, to within a sample a cache, whatever the batch size. Rows are numbered on from one
    cache to the next, so that no two samples have one address.

    Args:
        parts: one for each cache; what counts is the order of their samples.
        shares: of the samples, positive; they sum to 1.
    """

    def __init__(self, parts: Sequence[ShuffledBatches], shares: Sequence[float], batch_size: int) -> None:
        super().__init__()
        self.parts, self.batch_size = parts, batch_size
        self.shares = [Fraction(share).limit_denominator(10**6) for share in shares]
        ends = np.cumsum([int(part.rows.max()) + 1 for part in parts]).tolist()
        self._first_rows = [0, *ends[:-1]]

    def _read(self, step: int) -> Batch:
        starts, stops = (self.taken(number * self.batch_size) for number in (step, step + 1))
        batches = [
            replace(batch, rows=batch.rows + first)
            for part, start, stop, first in zip(self.parts, starts, stops, self._first_rows, strict=True)
            if stop > start
            for batch in [part.read(np.arange(start, stop))]
        ]
        return Batch(
            np.concatenate([batch.rows for batch in batches]),
            torch.cat([batch.latents for batch in batches]),
            torch.cat([batch.captions for batch in batches]),
        )

    def taken(self, samples: int) -> list[int]:
        """How many of the first `samples` come from each cache: no count ever falls as `samples` rises."""
        counts, left, weight = list[int](), samples, sum(self.shares, Fraction())
        for share in self.shares:
            # Of what the caches before have left, this one takes its part; the last one takes all.
            count = int(left * share / weight)
            counts.append(count)
            left, weight = left - count, weight - share
        return counts
