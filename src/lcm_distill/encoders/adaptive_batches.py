"""Batches that are halved when they do not fit the GPU's memory."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lcm_distill.core.errors import UserError


class AdaptiveBatches:
    """Computes on items in batches, halving the batch size when the GPU runs out of memory.

    Attributes:
        compute: (*columns of a batch) -> one row for each item.
        size: items in a batch; it falls when the GPU runs out of memory and does not rise again.
        remedy: ends the message where not even one item fits: what cannot be done, and what to change.
    """

    def __init__(
        self,
        compute: Callable[..., Tensor],
        size: int,
        remedy: str = "encode one image or caption: set encoders.tiling = true, or free it",
    ) -> None:
        self.compute, self.size, self.remedy = compute, size, remedy

    def __call__(self, *columns: Any) -> Tensor:
        """Results of `compute` for all items, concatenated along the first dimension.

        Args:
            columns: sequences or tensors of one length, the arguments of `compute`.

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
            # Only now, outside the handler: the error's traceback keeps the batch's tensors alive.
            torch.cuda.empty_cache()
        return torch.cat(computed)

    def _halve(self, count: int, error: torch.OutOfMemoryError) -> None:
        if count == 1:
            raise UserError(f"the GPU's memory is too small to {self.remedy}") from error
        self.size = count // 2
        warnings.warn(f"a batch of {count} does not fit the GPU's memory: {self.size} from now on", stacklevel=3)
