"""A checkpoint's tensors in files, by `torch.distributed.checkpoint`: every rank writes its share.

Only tensors are stored, and only `torch.load` with `weights_only` reads them. The index, which PyTorch's own writer
pickles and its reader executes, is JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict_loader import load  # pyright: ignore[reportUnknownVariableType]
from torch.distributed.checkpoint.state_dict_saver import save  # pyright: ignore[reportUnknownVariableType]
from torch.distributed.checkpoint.storage import WriteResult

from lcm_distill.core.errors import DataError
from lcm_distill.training.checkpointing.index import INDEX, Chunk, Index, StoredTensor, encode_index, read_index


def save_tensors(folder: Path, tensors: Mapping[str, Tensor], group: Any = None) -> None:
    """Write tensors and their index. A collective call.

    Raises:
        OSError: a rank could not write its share.
    """
    try:
        save(dict(tensors), storage_writer=_Writer(folder), process_group=group)
    except CheckpointException as failed:
        error = _first_error(failed)
        raise error if isinstance(error, OSError) else OSError(None, _line(error), str(folder)) from failed


def load_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors from a checkpoint, which may hold further ones. A collective call.

    Raises:
        DataError: the checkpoint does not hold these tensors, or its files hold something else; on every rank.
    """
    try:
        load(dict(tensors), storage_reader=_Reader(folder))
    except CheckpointException as failed:
        raise DataError(f"{folder} cannot be read: {_line(_first_error(failed))}") from failed


class _Writer(FileSystemWriter):
    """Ends a checkpoint with an index that is data."""

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index, on the coordinating rank."""
        places = {written.index: written.storage_data for of_rank in results for written in of_rank}
        index = {name: _stored(name, tensor, places) for name, tensor in metadata.state_dict_metadata.items()}
        Path(cast(Any, self).path, INDEX).write_bytes(encode_index(index))


class _Reader(FileSystemReader):
    """Takes the index from data; without entries of bytes, which PyTorch would unpickle."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The index as PyTorch's planner takes it."""
        return _metadata(read_index(Path(cast(Any, self).path)))


@dataclass(frozen=True)
class _Place:
    """Where a part lies, with the attributes that PyTorch's reader asks for."""

    relative_path: str
    offset: int
    length: int
    transform_descriptors: None = None


def _stored(name: str, tensor: Any, places: Mapping[MetadataIndex, Any]) -> StoredTensor:
    if not isinstance(tensor, TensorStorageMetadata):
        raise TypeError(f"{name} is not a tensor")
    chunks: list[Chunk] = []
    for chunk in tensor.chunks:
        place = places[MetadataIndex(name, chunk.offsets)]
        chunks.append(
            Chunk(
                offsets=tuple(chunk.offsets),
                sizes=tuple(chunk.sizes),
                file=place.relative_path,
                start=place.offset,
                length=place.length,
            )
        )
    dtype = str(tensor.properties.dtype).removeprefix("torch.")
    return StoredTensor(dtype=dtype, shape=tuple(tensor.size), chunks=tuple(chunks))


def _metadata(index: Index) -> Metadata:
    tensors = {
        name: TensorStorageMetadata(
            TensorProperties(getattr(torch, tensor.dtype)),
            torch.Size(tensor.shape),
            [ChunkStorageMetadata(torch.Size(chunk.offsets), torch.Size(chunk.sizes)) for chunk in tensor.chunks],
        )
        for name, tensor in index.items()
    }
    places = {
        MetadataIndex(name, chunk.offsets): _Place(chunk.file, chunk.start, chunk.length)
        for name, tensor in index.items()
        for chunk in tensor.chunks
    }
    return Metadata(dict(tensors), storage_data=places, storage_meta=StorageMeta())


def _first_error(failed: CheckpointException) -> Exception:
    """What the first failing rank raised; an interruption goes on as such."""
    for error, _ in failed.failures.values():
        if not isinstance(error, Exception):
            raise error from None
    return next(error for error, _ in failed.failures.values() if isinstance(error, Exception))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
