"""Batches for training: a global shuffle over the cache that any step can be asked for."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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

    def split(self, parts: int) -> "list[Batch]":
        """So many batches of these samples, in their order, as equal in size as can be."""
        pieces = np.array_split(self.rows, parts), self.latents.tensor_split(parts), self.captions.tensor_split(parts)
        return [Batch(*piece) for piece in zip(*pieces, strict=True)]

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Latents and captions on a device, float32; they travel as the float16 they are stored as.

        The copy is a blocking one: the memory it reads is used again as soon as nobody holds the batch.
        """
        return self.latents.to(device).float(), self.captions.to(device).float()


class ShuffledBatches:
    """Every sample once an epoch, in an order that depends on (seed, epoch) alone.

    A batch is a function of its step, so there is no position to save. A batch at the seam of two epochs takes
    from both. While a batch is used the next one is read.

    Args:
        latents, captions: readers of the two fields.
        rows, caption_rows: for each sample that may be drawn, its row in either field.
        rank, ranks: every `ranks`-th sample of a batch is read, starting with number `rank`: together, several readers
            read what one would.
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
        self.latents, self.captions = latents, captions
        self.rows, self.caption_rows = rows, caption_rows
        self.batch_size, self.rank, self.ranks = batch_size, rank, ranks
        # Two epochs are alive at a seam.
        self._order = lru_cache(maxsize=2)(lambda epoch: permutation(seed, "batches", epoch, len(rows)))
        self._thread = ThreadPoolExecutor(1, "next-batch")
        self._next: tuple[int, Future[Batch]] | None = None

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0, or this rank's part of it."""
        ahead = self._next
        batch = ahead[1].result() if ahead and ahead[0] == step else self._read(step)
        self._next = step + 1, self._thread.submit(self._read, step + 1)
        return batch

    def samples(self, step: int) -> np.ndarray:
        """Rows (batch_size,) of a step's samples, all ranks' together."""
        return self.rows[self._chosen(step)]

    def _chosen(self, step: int) -> np.ndarray:
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, offsets = np.divmod(places, len(self.rows))
        return np.concatenate([self._order(int(epoch))[offsets[epochs == epoch]] for epoch in np.unique(epochs)])

    def _read(self, step: int) -> Batch:
        chosen = self._chosen(step)[self.rank :: self.ranks]
        rows, caption_rows = self.rows[chosen], self.caption_rows[chosen]
        return Batch(rows, torch.from_numpy(self.latents[rows]), torch.from_numpy(self.captions[caption_rows]))
