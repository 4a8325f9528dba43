"""Strict loading and saving of MicroDiT weights, in the published key layout."""

import json
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lcm_distill.core.errors import UserError
from lcm_distill.core.finite import require_finite
from lcm_distill.core.hashing import bytes_sha256, digest, file_sha256, json_sha256
from lcm_distill.models.layers import ScalarEmbedder
from lcm_distill.models.microdit import MicroDiT
from lcm_distill.models.weight_files import cannot_read, file_metadata, files_of, network_weights, require_file
from lcm_distill.models.wrappers import ANCHOR, no_network

GUIDANCE_PREFIX = "cfg_embedder."
CPU = torch.device("cpu")
ALTERED = "it is not what was written"

METADATA = "lcm_distill"
"""Key of the description, as JSON, in the metadata of a safetensors file or of an index of shards."""
TENSORS_SHA256, SEAL = "tensors_sha256", "sha256"
"""Keys of two hashes in the description: of the tensors, and of the description with the first. Earlier versions wrote
none."""

SHOWN = 12
"""Misfits that a message names."""


def load_checkpoint(model: MicroDiT, path: str | Path, own_positions: bool = False) -> None:
    """Fill a model with the weights of a checkpoint; see `fill` and, for a teacher, `read_teacher_tensors`.

    Args:
        own_positions: keep the model's position embedding, which is computed, so that training continues at another
            resolution.

    Raises:
        UserError: the file is missing, unreadable or does not fit the model.
    """
    path = Path(path)
    tensors = read_tensors(path) if model.cfg_embedder is not None else read_teacher_tensors(path)
    if own_positions:
        tensors |= {"pos_embed": model.pos_embed}
    fill(model, tensors, path)


def fill(model: MicroDiT, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a model, strictly, cast to the dtypes of its parameters.

    A model on the meta device takes the tensors themselves, without a copy; any other copies them. A teacher's weights
    have no guidance embedder: a student then keeps its own, or gets one that starts at zero, and equals the teacher.

    Args:
        path: where the tensors come from, for the message.

    Raises:
        UserError: keys are missing, unexpected or of another shape; the message names them.
    """
    if ANCHOR not in tensors:
        raise no_network(path, tensors)
    if problems := _misfits(dict[str, Tensor](model.state_dict()), tensors):
        shown, more = "; ".join(problems[:SHOWN]), len(problems) - SHOWN
        raise UserError(f"{path} does not fit the model: {shown}" + (f"; and {more} more" if more > 0 else ""))
    wanted = dict[str, Tensor](model.state_dict())
    cast = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(cast, strict=False, assign=next(model.parameters()).is_meta)
    if model.cfg_embedder is not None and next(model.cfg_embedder.parameters()).is_meta:
        model.cfg_embedder = ScalarEmbedder(model.variant.dim)
        model.cfg_embedder.initialise_to_zero()


def _misfits(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps tensors from being those that a model wants, in words; other shapes first."""
    if not any(name.startswith(GUIDANCE_PREFIX) for name in tensors):
        wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith(GUIDANCE_PREFIX)}
    shapes = [
        f"{name} has shape {tuple(tensors[name].shape)}, the model wants {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    missing = [f"missing {name}" for name in sorted(wanted.keys() - tensors.keys())]
    return shapes + missing + [f"unexpected {name}" for name in sorted(tensors.keys() - wanted.keys())]


def read_tensors(path: Path, device: torch.device = CPU) -> dict[str, Tensor]:
    """A checkpoint's tensors by published name, on a device; see `weight_files` for what is read.

    Raises:
        UserError: the file is missing or holds no network.
        DataError: it is damaged, or has weights that are not finite.
    """
    if _read_description(path)[1] is not None:
        checkpoint_sha256(path)
    tensors = {name: load() for name, load in network_weights(path, device).items()}
    require_finite(tensors, f"checkpoint {path}")
    return tensors


def read_teacher_tensors(path: Path, device: torch.device = CPU) -> dict[str, Tensor]:
    """`read_tensors` of a teacher, without a guidance embedder.

    The original system saved its teacher with the embedder that only its student uses. It is left out, with a warning.

    Raises:
        UserError: as `read_tensors`, or the file describes a student.
    """
    tensors = read_tensors(path, device)
    unused = [name for name in tensors if name.startswith(GUIDANCE_PREFIX)]
    if unused and read_description(path).get("role") == "student":
        raise UserError(f"{path} is a student's checkpoint, and a teacher is wanted: unexpected {unused[0]}")
    if unused:
        warnings.warn(
            f"{path} has a guidance embedder ({unused[0]} ...), which no teacher uses: it is left out", stacklevel=2
        )
    return {name: tensor for name, tensor in tensors.items() if name not in unused}


def serialise(weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    """Weights as a safetensors file in the published key layout, with a description in its metadata.

    Args:
        weights: a model's `state_dict`.
        description: JSON; `role` is teacher or student, `model` the network's sizes. That of a student is
            `models.student.StudentDescription`.
    """
    from safetensors.torch import save

    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    return save(tensors, {METADATA: seal_description(description, tensors)})


def seal_description(description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """A description of weights as JSON, with their hash and its own."""
    described = {**description, TENSORS_SHA256: tensors_sha256(weights)}
    return json.dumps({**described, SEAL: json_sha256(described)})


def redescribe(path: Path, description: Mapping[str, Any]) -> bytes:
    """A `.safetensors` file with the same weights and another description.

    Raises:
        UserError: the file is missing or unreadable.
    """
    return serialise(read_tensors(path), description)


def read_description(path: Path) -> dict[str, Any]:
    """The description of a checkpoint; empty for a `.pt` file and for a file without one.

    Raises:
        UserError: the file is missing, unreadable, or its description is not what was written.
    """
    return _read_description(path)[0]


def _read_description(path: Path) -> tuple[dict[str, Any], str | None]:
    """The description, and the hash of the tensors where it records one."""
    metadata = file_metadata(path)
    if not metadata.get(METADATA):
        if any(f'"{TENSORS_SHA256}"' in str(text) for text in metadata.values()):
            raise cannot_read(path, ALTERED)  # the name of a description is damaged
        return {}, None
    try:
        described = json.loads(metadata[METADATA])
    except (ValueError, RecursionError, TypeError) as error:
        raise cannot_read(path, error) from error
    if not isinstance(described, dict):
        raise cannot_read(path, "its description is no JSON object")
    described = cast(dict[str, Any], described)
    seal, recorded = described.pop(SEAL, None), described.pop(TENSORS_SHA256, None)
    sealed = {**described, TENSORS_SHA256: recorded}
    if seal != (None if recorded is None else json_sha256(sealed)):
        raise cannot_read(path, ALTERED)
    return described, recorded


def checkpoint_sha256(path: Path) -> str:
    """Identity of a checkpoint: hex SHA-256 of its tensors' names, dtypes, shapes and bytes.

    It does not depend on file format, wrapper or description, so a student that is described anew is still the same. A
    file that has not changed since the last call is not read again.

    Raises:
        UserError: the file is missing or unreadable, or its tensors are not those that its description records.
    """
    _, recorded = _read_description(path)
    found = _sha256_as_of(path, tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in files_of(path)))
    if recorded not in (None, found):
        raise cannot_read(path, ALTERED)
    return found


def earlier_sha256(path: Path) -> str:
    """Identity that earlier versions gave a checkpoint: hex SHA-256 of its file, which is read once while it stays."""
    stat = path.stat()
    return _file_sha256_as_of(path, stat.st_size, stat.st_mtime_ns)


@cache
def _file_sha256_as_of(path: Path, size: int, modified: int) -> str:
    del size, modified  # they distinguish a file that was replaced
    return file_sha256(path)


@cache
def _sha256_as_of(path: Path, stamps: tuple[tuple[int, int], ...]) -> str:
    del stamps  # they distinguish a file that was replaced
    weights = network_weights(path, CPU)  # one tensor in memory at a time
    return bytes_sha256(part for name in sorted(weights) for part in _parts(name, weights[name]()))


def files_sha256(path: Path) -> str:
    """Hash of a checkpoint's bytes: hex SHA-256 of its file, or of the hashes of index and shards.

    Raises:
        UserError: the file is missing, or a shard.
    """
    require_file(path)
    hashes = [file_sha256(file) for file in files_of(path)]
    return hashes[0] if len(hashes) == 1 else digest(hashes)


def has_weights(path: Path, weights: Mapping[str, Tensor]) -> bool:
    """Whether a file is a readable checkpoint with exactly these weights."""
    try:
        return path.is_file() and checkpoint_sha256(path) == tensors_sha256(weights)
    except UserError:
        return False


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """`checkpoint_sha256` of a file with these tensors, whatever their order and device."""
    return bytes_sha256(part for name in sorted(tensors) for part in _parts(name, tensors[name]))


def _parts(name: str, tensor: Tensor) -> Iterator[bytes | memoryview]:
    values = tensor.detach().cpu().contiguous()
    yield json.dumps([name, str(values.dtype), list(values.shape)]).encode()
    yield values.reshape(-1).view(torch.uint8).numpy().data
