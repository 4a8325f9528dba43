"""Images as the network of a protocol takes them, decoded ahead in threads."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from lcm_distill.metrics.protocol import OpenedProtocol
from lcm_distill.metrics.reference_files import read_image
from lcm_distill.pipeline.prefetch import prefetch_map

Item = TypeVar("Item")

DECODERS = 2
DECODED_AHEAD = 64
"""Images that are decoded before the network needs them."""


def prepare_files(opened: OpenedProtocol, paths: Iterable[Path]) -> Iterator[Tensor]:
    """Image files as the protocol's network takes them.

    Raises:
        DataError: a file cannot be read.
    """
    return prepare_ahead(lambda path: opened.protocol.prepare(read_image(path)), paths)


def prepare_ahead(prepare: Callable[[Item], Tensor], items: Iterable[Item]) -> Iterator[Tensor]:
    """What `prepare` makes of each item, in their order."""
    return prefetch_map(prepare, items, DECODERS, DECODED_AHEAD)
