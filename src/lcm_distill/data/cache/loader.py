# The types of torch.from_numpy are partial.
# pyright: reportUnknownMemberType=false
"""Training batches: a global shuffle over one or several caches, with random access by step."""

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

from lcm_distill.arrays.reader import FieldReader
from lcm_distill.core.device import to_device
from lcm_distill.core.randomness import permutation


@dataclass(frozen=True)
class Batch:
    """Samples of one step.

    Attributes:
        rows: int64 (B,), the samples' rows in the cache.
        addresses: int64 (B,), which address the samples' random numbers; see `distinct_addresses`.
        latents: float16 (B, C, h, w), scaled.
        captions: float16 (B, L, width), token embeddings.
    """

    rows: np.ndarray
    addresses: np.ndarray
    latents: Tensor
    captions: Tensor

    def split(self, parts: int) -> "list[Batch]":
        """Split into `parts` batches, in order and of nearly equal size."""
        rows, addresses = np.array_split(self.rows, parts), np.array_split(self.addresses, parts)
        pieces = rows, addresses, self.latents.tensor_split(parts), self.captions.tensor_split(parts)
        return [Batch(*piece) for piece in zip(*pieces, strict=True)]

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Copy latents and captions to a device as float16, and convert them to float32 there.

        The memory of a batch is reused as soon as nothing refers to the batch.
        """
        return to_device(self.latents, device).float(), to_device(self.captions, device).float()


OCCURRENCE = 2**40
"""Distance of the addresses of a sample's occurrences in one batch; a cache has fewer rows."""


def distinct_addresses(rows: np.ndarray) -> np.ndarray:
    """Addresses of a step's samples, of all ranks together, int64 (B,), no two of which are equal.

    They are the rows themselves, but for a sample that a batch holds again, as happens where there are few samples and
    where an epoch ends: each further occurrence has an address of its own, and so another noise.
    """
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    occurrences = np.empty_like(order)
    occurrences[order] = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
    return rows + OCCURRENCE * occurrences


class Batches(ABC):
    """One batch per step; while a batch is used the next one is read.

    Args:
        batch_size: samples of a step, of all ranks together.
        rank, ranks: only every `ranks`-th sample of a batch is read, starting with sample `rank`.
    """

    def __init__(self, batch_size: int, rank: int, ranks: int) -> None:
        self.batch_size, self.rank, self.ranks = batch_size, rank, ranks
        self._thread = ThreadPoolExecutor(1, "next-batch")
        self._next: tuple[int, Future[Batch]] | None = None

    def __getitem__(self, step: int) -> Batch:
        """This rank's part of the batch of a step, counted from 0."""
        ahead = self._next
        batch = ahead[1].result() if ahead and ahead[0] == step else self._addressed(step)
        self._next = step + 1, self._thread.submit(self._addressed, step + 1)
        return batch

    def close(self) -> None:
        """End the threads that read, after what they read now; no batch can be read afterwards."""
        self._thread.shutdown(cancel_futures=True)

    def _addressed(self, step: int) -> Batch:
        """A step's batch, with addresses that are counted over all ranks."""
        addresses = distinct_addresses(self.samples(step))[self.rank :: self.ranks]
        return replace(self._read(step), addresses=addresses)

    @abstractmethod
    def samples(self, step: int) -> np.ndarray:
        """Rows of a step's samples, of all ranks together, int64 (batch_size,)."""

    @abstractmethod
    def _read(self, step: int) -> Batch: ...


class ShuffledBatches(Batches):
    """Every sample once per epoch, in an order that is a function of (seed, epoch).

    A batch is a function of its step, so there is no position to save. A batch can contain the end of one epoch and the
    start of the next.

    Args:
        latents, captions: readers of the two fields.
        rows, caption_rows: the rows of each training sample in the two fields, int64 (samples,).
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
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._permutation)  # a batch takes from at most two epochs

    def samples(self, step: int) -> np.ndarray:
        """Rows of a step's samples, of all ranks together, int64 (batch_size,)."""
        return self.rows_at(self._positions(step))

    def rows_at(self, positions: np.ndarray) -> np.ndarray:
        """Rows of the samples at these positions of the infinite sequence of epochs, counted from 0."""
        return self.rows[self._chosen(positions)]

    def read(self, positions: np.ndarray) -> Batch:
        """The samples at these positions."""
        chosen = self._chosen(positions)
        rows, caption_rows = self.rows[chosen], self.caption_rows[chosen]
        return Batch(rows, rows, torch.from_numpy(self.latents[rows]), torch.from_numpy(self.captions[caption_rows]))

    def close(self) -> None:
        """End the threads that read, those of both fields too."""
        super().close()
        self.latents.close()
        self.captions.close()

    def _permutation(self, epoch: int) -> np.ndarray:
        return permutation(self._seed, "batches", epoch, len(self.rows))

    def _positions(self, step: int) -> np.ndarray:
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size)

    def _chosen(self, positions: np.ndarray) -> np.ndarray:
        epochs, offsets = np.divmod(positions, len(self.rows))
        return np.concatenate([self._order(int(epoch))[offsets[epochs == epoch]] for epoch in np.unique(epochs)])

    def _read(self, step: int) -> Batch:
        return self.read(self._positions(step)[self.rank :: self.ranks])


class MixedBatches(Batches):
    """Samples of several caches in fixed proportions; each cache has epochs of its own.

    Proportions hold after every sample, to within one sample per cache, whatever the batch size. Row numbers continue
    from one cache to the next, so that no two samples have the same address.

    Args:
        parts: batches of each cache, of which only the order of the samples matters.
        shares: share of the samples that comes from each cache; positive, with sum 1.
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
        """Rows of a step's samples, of all ranks together, counted through all caches, int64 (batch_size,)."""
        parts = zip(self.parts, self._first_rows, self._positions(step), strict=True)
        return np.concatenate([part.rows_at(positions) + first for part, first, positions in parts if len(positions)])

    def close(self) -> None:
        """End the threads that read, those of every cache too."""
        super().close()
        for part in self.parts:
            part.close()

    def cache_of(self, row: int) -> tuple[int, int]:
        """The number of the cache that a row is in, and its row there."""
        number = bisect_right(self._first_rows, row) - 1
        return number, row - self._first_rows[number]

    def taken(self, samples: int) -> list[int]:
        """How many of the first `samples` come from each cache. No count decreases as `samples` increases."""
        counts, left, weight = list[int](), samples, sum(self.shares, Fraction())
        for share in self.shares:
            # Each cache takes its part of what the caches before it have left; the last one takes all.
            count = int(left * share / weight)
            counts.append(count)
            left, weight = left - count, weight - share
        return counts

    def _positions(self, step: int) -> list[np.ndarray]:
        """The positions of a step's samples in each cache."""
        starts, stops = (self.taken(number * self.batch_size) for number in (step, step + 1))
        return [np.arange(start, stop) for start, stop in zip(starts, stops, strict=True)]

    def _read(self, step: int) -> Batch:
        positions, before, batches = self._positions(step), 0, list[Batch]()
        for part, first, of_part in zip(self.parts, self._first_rows, positions, strict=True):
            own = of_part[(self.rank - before) % self.ranks :: self.ranks]
            before += len(of_part)
            if len(own):
                batch = part.read(own)
                batches.append(replace(batch, rows=batch.rows + first))
        rows = np.concatenate([batch.rows for batch in batches])
        return Batch(
            rows,
            rows,
            torch.cat([batch.latents for batch in batches]),
            torch.cat([batch.captions for batch in batches]),
        )


def rows_not_finite(batch: Batch) -> list[str]:
    """Rows of a batch whose latents or captions are not finite."""
    finite = [values.flatten(1).isfinite().all(1).cpu() for values in (batch.latents, batch.captions)]
    return [str(row) for row, sound in zip(batch.rows, finite[0] & finite[1], strict=True) if not sound]
