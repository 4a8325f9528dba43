"""Parts of tensors in a file: their numbers as they are in memory, row-major and little-endian, one after the other."""

from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

SUFFIX = ".bin"


@dataclass(frozen=True)
class Place:
    """Where a part lies.

    Attributes:
        relative_path: name of the file in the checkpoint's folder. offset, length: in it, in bytes.
        dtype, sizes: of the part.
        transform_descriptors: None, where PyTorch's reader asks for the transforms of a stored stream.
    """

    relative_path: str
    offset: int
    length: int
    dtype: torch.dtype
    sizes: tuple[int, ...]
    transform_descriptors: None = None

    def read(self, file: BinaryIO) -> Tensor:
        """The part, on the CPU.

        Raises:
            ValueError: the file does not hold as many bytes, or they are not a part of these sizes.
        """
        content = bytearray(self.length)
        file.seek(self.offset)
        if cast(Any, file).readinto(content) != self.length:
            raise ValueError(f"{self.relative_path} ends before byte {self.offset + self.length}")
        return torch.frombuffer(content, dtype=self.dtype).reshape(self.sizes) if content else self._empty()

    def _empty(self) -> Tensor:
        return torch.empty(0, dtype=self.dtype).reshape(self.sizes)


def write_part(file: BinaryIO, name: str, part: Tensor) -> Place:
    """Append a part to a file of this name."""
    start = file.tell()
    length = file.write(_bytes(part))
    return Place(name, start, length, part.dtype, tuple(part.shape))


def _bytes(part: Tensor) -> memoryview:
    flat = part.detach().cpu().contiguous().reshape(-1)
    return memoryview(cast(Any, flat.view(torch.uint8).numpy()))
