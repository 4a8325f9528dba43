"""Batches that fit the memory: halved when they do not."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lcm_distill.errors import UserError


class FittingBatches:
    """Encodes items in batches of `size`, or of half of it, or of half of that, whatever fits.

    Attributes:
        size: items to a batch; it falls when the GPU's memory runs out and does not rise again.
    """

    def __init__(self, encode: Callable[..., Tensor], size: int) -> None:
        self.encode, self.size = encode, size

    def __call__(self, *columns: Any) -> Tensor:
        """What `encode` gives for all items, along the first dimension.

        Args:
            columns: sequences or tensors of one length, which `encode` takes side by side.

        Raises:
            UserError: not even one item fits.
        """
        encoded: list[Tensor] = []
        done = 0
        while done < len(columns[0]):
            batch = [column[done : done + self.size] for column in columns]
            try:
                encoded.append(self.encode(*batch))
            except torch.OutOfMemoryError as error:
                self._halve(len(batch[0]), error)
                torch.cuda.empty_cache()
                continue
            done += len(batch[0])
        return torch.cat(encoded)

    def _halve(self, count: int, error: torch.OutOfMemoryError) -> None:
        if count == 1:
            raise UserError(
                "the GPU's memory is too small to encode one picture or caption: set encoders.tiling = true, or free it"
            ) from error
        self.size = count // 2
        warnings.warn(f"a batch of {count} does not fit the GPU's memory: {self.size} from now on", stacklevel=3)
