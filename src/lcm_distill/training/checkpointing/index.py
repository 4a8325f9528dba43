"""The index of a checkpoint: shape and dtype of each tensor, and where its parts lie, as JSON."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from lcm_distill.core.errors import DataError
from lcm_distill.core.regular_files import read_regular
from lcm_distill.training.checkpointing.parts import SUFFIX
from lcm_distill.training.checkpointing.pickled_index import PICKLED, read_pickled

INDEX = "index.json"

Number = Annotated[int, Field(ge=0, strict=True)]
Sizes = tuple[Number, ...]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Chunk(_Record):
    """A part of a tensor.

    Attributes:
        offsets, sizes: of the part in the tensor, by dimension.
        file: name in the checkpoint's folder. start, length: the part's place in the file, in bytes.
    """

    offsets: Sizes
    sizes: Sizes
    file: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # never a path to another folder
    start: Number
    length: Number


class StoredTensor(_Record):
    """A tensor of a checkpoint: dtype by PyTorch's name, shape, and its parts."""

    dtype: str
    shape: Sizes
    chunks: tuple[Chunk, ...]

    @field_validator("dtype")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if not isinstance(getattr(torch, name, None), torch.dtype):
            raise ValueError("is not a dtype")
        return name

    @model_validator(mode="after")
    def _is_covered(self) -> Self:
        """The parts are the tensor's slices along its first axis, each once, in the bytes that they need."""
        shape, end = self.shape or (1,), 0
        for chunk in sorted(self.chunks, key=lambda chunk: (chunk.offsets, chunk.sizes)):
            offsets, sizes = chunk.offsets or (0,), chunk.sizes or (1,)
            if sizes[1:] != shape[1:] or offsets != (end, *(0 for _ in shape[1:])):
                raise ValueError("has parts that are not its slices")
            if chunk.file.endswith(SUFFIX) and chunk.length != math.prod(sizes) * getattr(torch, self.dtype).itemsize:
                raise ValueError("has a part of another length in bytes")
            end += sizes[0]
        if end != shape[0]:
            raise ValueError("is not all there")
        return self


Index = dict[str, StoredTensor]
_ADAPTER = TypeAdapter(Index)


def encode_index(index: Index) -> bytes:
    """The content of the file `INDEX`."""
    return _ADAPTER.dump_json(index)


def read_index(folder: Path) -> Index:
    """The index of a checkpoint by name of tensor, also of one that an earlier version wrote.

    Raises:
        DataError: it is missing or damaged, or a part lies outside its file.
    """
    path = next((path for name in (INDEX, PICKLED) if (path := folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder / INDEX} is missing")
    try:
        content = read_regular(path)
        values = read_pickled(content) if path.name == PICKLED else None
        index = _ADAPTER.validate_json(content) if values is None else _ADAPTER.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path} is not an index: {'.'.join(map(str, first['loc']))} {first['msg']}") from error
    except ValueError as error:
        raise DataError(f"{path} is not an index: {error}") from error
    _require_parts(folder, index)
    return index


def _require_parts(folder: Path, index: Index) -> None:
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    places = sorted((part.file, part.start, part.length) for tensor in index.values() for part in tensor.chunks)
    for (file, start, length), (other, begins, _) in pairwise(places):
        if file == other and begins < start + length:
            raise DataError(f"{folder / INDEX} is not an index: parts in {file} overlap at byte {begins}")
    for name, tensor in index.items():
        for chunk in tensor.chunks:
            if chunk.start + chunk.length > sizes.get(chunk.file, 0):
                raise DataError(f"{folder / chunk.file} does not hold all of {name}")
