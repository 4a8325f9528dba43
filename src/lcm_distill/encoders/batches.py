"""Batches that fit the memory: halved when they do not."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lcm_distill.core.errors import UserError


class FittingBatches:
    """Computes on items in batches of `size`, or of half of it, or of half of that, whatever fits.

    Attributes:
        size: items to a batch; it falls when the GPU's memory runs out and does not rise again.
        remedy: what the memory is too small for even with one item, and what would help against it.
    """

    def __init__(
        self,
        compute: Callable[..., Tensor],
        size: int,
        remedy: str = "encode one image or caption: set encoders.tiling = true, or free it",
    ) -> None:
        self.compute, self.size, self.remedy = compute, size, remedy

    def __call__(self, *columns: Any) -> Tensor:
        """What `compute` gives for all items, along the first dimension.

        Args:
            columns: sequences or tensors of one length, which `compute` takes side by side.

        Raises:
            UserError: not even one item fits.
        """
        computed: list[Tensor] = []
        done = 0
        while done < len(columns[0]):
            batch = [column[done : done + self.size] for column in columns]
            try:
                computed.append(self.compute(*batch))
                done += len(batch[0])
                continue
            except torch.OutOfMemoryError as error:
                self._halve(len(batch[0]), error)
            # The error's traceback holds the batch's tensors, so only now is there something to give back.
            torch.cuda.empty_cache()
        return torch.cat(computed)

    def _halve(self, count: int, error: torch.OutOfMemoryError) -> None:
        if count == 1:
            raise UserError(f"the GPU's memory is too small to {self.remedy}") from error
        self.size = count // 2
        warnings.warn(f"a batch of {count} does not fit the GPU's memory: {self.size} from now on", stacklevel=3)
