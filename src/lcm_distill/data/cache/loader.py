"""Batches for training: a global shuffle over one cache or several that any step can be asked for."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lcm_distill.core.device import to_device
from lcm_distill.core.randomness import permutation
from lcm_distill.data.cache.reader import FieldReader


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

    def split(self, parts: int) -> "list[Batch]":
        """So many batches of these samples, in their order, as equal in size as can be."""
        pieces = np.array_split(self.rows, parts), self.latents.tensor_split(parts), self.captions.tensor_split(parts)
        return [Batch(*piece) for piece in zip(*pieces, strict=True)]

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Latents and captions on a device, float32; they travel as the float16 they are stored as.

        The memory they are read from is used again as soon as nobody holds the batch.
        """
        return to_device(self.latents, device).float(), to_device(self.captions, device).float()


class Batches(ABC):
    """A batch a step; while a batch is used the next one is read.

    Args:
        rank, ranks: every `ranks`-th sample of a batch is read, starting with number `rank`: together, several readers
            read what one would.
    """

    def __init__(self, batch_size: int, rank: int, ranks: int) -> None:
        self.batch_size, self.rank, self.ranks = batch_size, rank, ranks
        self._thread = ThreadPoolExecutor(1, "next-batch")
        self._next: tuple[int, Future[Batch]] | None = None

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0, or this rank's part of it."""
        ahead = self._next
        batch = ahead[1].result() if ahead and ahead[0] == step else self._read(step)
        self._next = step + 1, self._thread.submit(self._read, step + 1)
        return batch

    @abstractmethod
    def samples(self, step: int) -> np.ndarray:
        """Rows (batch_size,) of a step's samples, all ranks' together."""

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
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        super().__init__(batch_size, rank, ranks)
        self.latents, self.captions = latents, captions
        self.rows, self.caption_rows = rows, caption_rows
        # Two epochs are alive at a seam.
        self._order = lru_cache(maxsize=2)(lambda epoch: permutation(seed, "batches", epoch, len(rows)))

    def samples(self, step: int) -> np.ndarray:
        return self.rows_at(self._places(step))

    def rows_at(self, places: np.ndarray) -> np.ndarray:
        """Rows of the samples at these places of the endless sequence of epochs, counted from 0."""
        return self.rows[self._chosen(places)]

    def read(self, places: np.ndarray) -> Batch:
        """The samples at these places."""
        chosen = self._chosen(places)
        rows, caption_rows = self.rows[chosen], self.caption_rows[chosen]
        return Batch(rows, torch.from_numpy(self.latents[rows]), torch.from_numpy(self.captions[caption_rows]))

    def _places(self, step: int) -> np.ndarray:
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size)

    def _chosen(self, places: np.ndarray) -> np.ndarray:
        epochs, offsets = np.divmod(places, len(self.rows))
        return np.concatenate([self._order(int(epoch))[offsets[epochs == epoch]] for epoch in np.unique(epochs)])

    def _read(self, step: int) -> Batch:
        return self.read(self._places(step)[self.rank :: self.ranks])


class MixedBatches(Batches):
    """Samples of several caches, each with its share; each cache goes through epochs of its own.

    Shares hold at every moment, to within a sample a cache, whatever the batch size. Rows are numbered on from one
    cache to the next, so that no two samples have one address.

    Args:
        parts: one for each cache; what counts is the order of their samples.
        shares: of the samples, positive; they sum to 1.
    """

    def __init__(
        self,
        parts: Sequence[ShuffledBatches],
        shares: Sequence[float],
        batch_size: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        super().__init__(batch_size, rank, ranks)
        self.parts = parts
        self.shares = [Fraction(share).limit_denominator(10**6) for share in shares]
        ends = np.cumsum([int(part.rows.max()) + 1 for part in parts]).tolist()
        self._first_rows = [0, *ends[:-1]]

    def samples(self, step: int) -> np.ndarray:
        parts = zip(self.parts, self._first_rows, self._places(step), strict=True)
        return np.concatenate([part.rows_at(places) + first for part, first, places in parts if len(places)])

    def cache_of(self, row: int) -> tuple[int, int]:
        """Which cache the sample of a row is from, and its row there."""
        number = bisect_right(self._first_rows, row) - 1
        return number, row - self._first_rows[number]

    def taken(self, samples: int) -> list[int]:
        """How many of the first `samples` come from each cache: no count ever falls as `samples` rises."""
        counts, left, weight = list[int](), samples, sum(self.shares, Fraction())
        for share in self.shares:
            # Of what the caches before have left, this one takes its part; the last one takes all.
            count = int(left * share / weight)
            counts.append(count)
            left, weight = left - count, weight - share
        return counts

    def _places(self, step: int) -> list[np.ndarray]:
        """Of each cache, the places of a step's samples."""
        starts, stops = (self.taken(number * self.batch_size) for number in (step, step + 1))
        return [np.arange(start, stop) for start, stop in zip(starts, stops, strict=True)]

    def _read(self, step: int) -> Batch:
        places, before, batches = self._places(step), 0, list[Batch]()
        for part, first, of_part in zip(self.parts, self._first_rows, places, strict=True):
            own = of_part[(self.rank - before) % self.ranks :: self.ranks]
            before += len(of_part)
            if len(own):
                batch = part.read(own)
                batches.append(replace(batch, rows=batch.rows + first))
        return Batch(
            np.concatenate([batch.rows for batch in batches]),
            torch.cat([batch.latents for batch in batches]),
            torch.cat([batch.captions for batch in batches]),
        )
