"""A checkpoint's tensors in files, by `torch.distributed.checkpoint`: every rank writes its share.

Its planner decides who writes and reads what. The files are numbers alone, one part of a tensor after the other, and
the index is JSON: PyTorch's own writer makes a pickle of each part and of the index, which costs a millisecond a part,
and its reader runs what an index holds.
"""

import os
from collections.abc import Mapping
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
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load  # pyright: ignore[reportUnknownVariableType]
from torch.distributed.checkpoint.state_dict_saver import save  # pyright: ignore[reportUnknownVariableType]
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from lcm_distill.core.errors import DataError
from lcm_distill.training.checkpointing.index import INDEX, Chunk, Index, StoredTensor, encode_index, read_index
from lcm_distill.training.checkpointing.parts import SUFFIX, Place, write_part


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
    """Writes a file a rank, and an index that is data."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's parts, in the plan's order; what is more than its numbers, as PyTorch stores it."""
        parts = [(item, cast(Tensor, planner.resolve_data(item))) for item in plan.items]
        quantised = [item for item, part in parts if not _is_plain(part)]
        written = super().write_data(SavePlan(quantised, plan.storage_data), planner).wait() if quantised else []
        name = f"{plan.storage_data.prefix}0{SUFFIX}"
        with Path(cast(Any, self).path, name).open("wb") as file:
            for item, part in parts:
                if _is_plain(part):
                    place = write_part(file, name, part)
                    written.append(WriteResult(item.index, place.length, place))
            file.flush()
            os.fsync(file.fileno())
        return _done(written)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index, on the coordinating rank."""
        places = {written.index: written.storage_data for of_rank in results for written in of_rank}
        index = {name: _stored(name, tensor, places) for name, tensor in metadata.state_dict_metadata.items()}
        Path(cast(Any, self).path, INDEX).write_bytes(encode_index(index))


class _Reader(FileSystemReader):
    """Takes the index from data; without entries of bytes, which PyTorch would unpickle."""

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill this rank's tensors, file by file; those of an earlier version as PyTorch has stored them."""
        places = cast("dict[MetadataIndex, Place]", self.storage_data)
        by_file: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            by_file.setdefault(places[item.storage_index].relative_path, []).append(item)
        for name, items in by_file.items():
            if not name.endswith(SUFFIX):
                super().read_data(LoadPlan(items), planner).wait()
                continue
            with Path(cast(Any, self).path, name).open("rb") as file:
                for item in sorted(items, key=lambda item: places[item.storage_index].offset):
                    part = places[item.storage_index].read(file)
                    for axis, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                        part = part.narrow(axis, start, length)
                    target = planner.resolve_tensor(item).detach()
                    if target.dtype != part.dtype:
                        raise ValueError(f"{item.dest_index.fqn} is {target.dtype}, and {part.dtype} in the checkpoint")
                    target.copy_(part)
                    planner.commit_tensor(item, target)
        return _done(None)

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The index as PyTorch's planner takes it."""
        return _metadata(read_index(Path(cast(Any, self).path)))


def _is_plain(part: Tensor) -> bool:
    """Whether a tensor is its numbers alone, unlike 8-bit moments, which have scales."""
    return type(part) in (Tensor, torch.nn.Parameter)


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
        MetadataIndex(name, chunk.offsets): Place(
            chunk.file, chunk.start, chunk.length, getattr(torch, tensor.dtype), chunk.sizes
        )
        for name, tensor in index.items()
        for chunk in tensor.chunks
    }
    return Metadata(dict(tensors), storage_data=places, storage_meta=StorageMeta())


def _done(result: Any) -> Future[Any]:
    future = Future[Any]()
    future.set_result(result)
    return future


def _first_error(failed: CheckpointException) -> Exception:
    """What the first failing rank raised; an interruption goes on as such."""
    for error, _ in failed.failures.values():
        if not isinstance(error, Exception):
            raise error from None
    return next(error for error, _ in failed.failures.values() if isinstance(error, Exception))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
