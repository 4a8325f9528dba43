"""Identity of checkpoints: hashes of their tensors, and of their files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lcm_distill.core.hashing import bytes_sha256, digest, file_sha256, unchanged_file_sha256
from lcm_distill.core.weight_errors import cannot_read
from lcm_distill.models.checkpoint_description import ALTERED, read_description_and_hash
from lcm_distill.models.weight_files import (
    files_of,
    form_of,
    network_weights,
    require_file,
    stored_tensors,
)

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
"""PyTorch's names of dtypes by safetensors' names."""


def checkpoint_sha256(path: Path) -> str:
    """Identity of a checkpoint: hex SHA-256 of its tensors' names, dtypes, shapes and bytes.

    It does not depend on file format, wrapper or description, so a student that is described anew is still the same. A
    file that has not changed since the last call is not read again.

    Raises:
        UserError: the file is missing or unreadable, or its tensors are not those that its description records.
    """
    _, recorded = read_description_and_hash(path)
    found = _sha256_as_of(path, tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in files_of(path)))
    if recorded not in (None, found):
        raise cannot_read(path, ALTERED)
    return found


def untrained_sha256(teacher: Path) -> str:
    """Identity of a student before its training, whose teacher's checkpoint is given: no file has it.

    Raises:
        UserError: as `checkpoint_sha256`.
    """
    return digest(["untrained student", checkpoint_sha256(teacher)])


def earlier_sha256(path: Path) -> str:
    """Identity that earlier versions gave a checkpoint: hex SHA-256 of its file."""
    return unchanged_file_sha256(path)


@cache
def _sha256_as_of(path: Path, stamps: tuple[tuple[int, int], ...]) -> str:
    del stamps  # they distinguish a file that was replaced
    return bytes_sha256(_parts_of_pickle(path) if form_of(path) == "pickle" else _parts(path))


def _parts(path: Path) -> Iterator[bytes | memoryview]:
    for name, stored in sorted(stored_tensors(path).items()):
        if stored.dtype not in DTYPES:
            raise cannot_read(path, f"{name} is of dtype {stored.dtype}")
        yield _header(name, f"torch.{DTYPES[stored.dtype]}", stored.shape)
        yield stored.content.data


def _parts_of_pickle(path: Path) -> Iterator[bytes | memoryview]:
    import torch

    weights = network_weights(path, torch.device("cpu"))
    for name in sorted(weights):  # one tensor in memory at a time
        yield from _parts_of_tensor(name, weights[name]())


def tensors_sha256(tensors: "Mapping[str, Tensor]") -> str:
    """`checkpoint_sha256` of a file with these tensors, whatever their order and device."""
    return bytes_sha256(part for name in sorted(tensors) for part in _parts_of_tensor(name, tensors[name]))


def _parts_of_tensor(name: str, tensor: "Tensor") -> Iterator[bytes | memoryview]:
    import torch

    values = tensor.detach().cpu().contiguous()
    yield _header(name, str(values.dtype), values.shape)
    yield values.reshape(-1).view(torch.uint8).numpy().data


def _header(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    """What is hashed of a tensor before its bytes; `dtype` as PyTorch writes it."""
    return json.dumps([name, dtype, list(shape)]).encode()


def files_sha256(path: Path) -> str:
    """Hash of a checkpoint's bytes: hex SHA-256 of its file, or of the hashes of index and shards.

    Raises:
        UserError: the file is missing, or a shard.
    """
    require_file(path)
    hashes = [file_sha256(file) for file in files_of(path)]
    return hashes[0] if len(hashes) == 1 else digest(hashes)
