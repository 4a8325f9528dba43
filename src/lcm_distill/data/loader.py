"""Batches for training: a global shuffle over the cache that any step can be asked for."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lcm_distill.data.cache import FieldReader
from lcm_distill.diffusion.randomness import permutation


@dataclass(frozen=True)
class Batch:
    """Samples of one step.

    Attributes:
        rows: (B,), the samples' rows in the cache, which address their randomness.
        latents: (B, C, h, w), float32. captions: (B, L, width), float32.
    """

    rows: np.ndarray
    latents: Tensor
    captions: Tensor


class ShuffledBatches:
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
        self.latents, self.captions = latents, captions
        self.rows, self.caption_rows = rows, caption_rows
        self.batch_size = batch_size
        # Two epochs are alive at a seam.
        self._order = lru_cache(maxsize=2)(lambda epoch: permutation(seed, "batches", epoch, len(rows)))

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, offsets = np.divmod(places, len(self.rows))
        chosen = np.array([self._order(int(epoch))[offset] for epoch, offset in zip(epochs, offsets, strict=True)])
        rows = self.rows[chosen]
        return Batch(
            rows,
            torch.from_numpy(self.latents[rows]).float(),
            torch.from_numpy(self.captions[self.caption_rows[chosen]]).float(),
        )
