"""The plain tensors inside tensors: of a DTensor its local one, of an 8-bit one its codes and scales."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor


def plain_parts(tensor: Any) -> Iterator[Tensor]:
    """The plain tensors inside a tensor; itself, if it is one."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from plain_parts(getattr(tensor, name))
    elif isinstance(tensor, Tensor):
        yield tensor


@torch.no_grad()
def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors of which this rank's part holds a value that is not finite. Waits for the device once each."""
    parts = [(name, part) for name, tensor in tensors.items() for part in plain_parts(tensor)]
    checked = [(name, part.isfinite().all()) for name, part in parts if part.is_floating_point() and part.numel()]
    bad: list[str] = []
    for device in {finite.device for _, finite in checked}:
        names = [name for name, finite in checked if finite.device == device]
        flags = torch.stack([finite for _, finite in checked if finite.device == device])
        finite = cast(list[bool], flags.tolist())  # pyright: ignore[reportUnknownMemberType]
        bad += [name for name, sound in zip(names, finite, strict=True) if not sound]
    return bad
