"""Strict loading and saving of MicroDiT weights, in the published key layout."""
# safetensors types its reader as unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, is_tensor

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.finite import require_finite
from lcm_distill.core.hashing import bytes_sha256, file_sha256
from lcm_distill.models.layers import ScalarEmbedder
from lcm_distill.models.microdit import MicroDiT

GUIDANCE_PREFIX = "cfg_embedder."
CPU = torch.device("cpu")
LARGEST_HEADER = 10_000_000
"""Bytes of a safetensors header; that of the largest network has 200,000."""
AGAIN = "take another copy, or run the command that trained it again, which publishes it again"


def load_checkpoint(model: MicroDiT, path: str | Path, own_positions: bool = False) -> None:
    """Fill a model with the weights of a `.safetensors` or `.pt` file; see `fill`.

    Args:
        own_positions: keep the model's position embedding, which is computed, so that training continues at another
            resolution.

    Raises:
        UserError: the file is missing, unreadable or does not fit the model.
    """
    path = Path(path)
    tensors = read_tensors(path)
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
        UserError: keys are missing, unexpected or of another shape; the message lists them.
    """
    wanted = dict[str, Tensor](model.state_dict())
    if not any(name.startswith(GUIDANCE_PREFIX) for name in tensors):
        wanted = {k: v for k, v in wanted.items() if not k.startswith(GUIDANCE_PREFIX)}
    problems = [f"missing {name}" for name in wanted.keys() - tensors.keys()]
    problems += [f"unexpected {name}" for name in tensors.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, the model wants {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    if problems:
        raise UserError(f"{path} does not fit the model: " + "; ".join(sorted(problems)))
    cast = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(cast, strict=False, assign=next(model.parameters()).is_meta)
    if model.cfg_embedder is not None and next(model.cfg_embedder.parameters()).is_meta:
        model.cfg_embedder = ScalarEmbedder(model.variant.dim)
        model.cfg_embedder.initialise_to_zero()


def read_tensors(path: Path, device: torch.device = CPU) -> dict[str, Tensor]:
    """A checkpoint's tensors by name, on a device; pickles are read with `weights_only`.

    Raises:
        UserError: the file is missing, unreadable, damaged, or has weights that are not finite.
    """
    if _read_description(path)[1] is not None:
        checkpoint_sha256(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path, device=str(device))
        else:
            tensors = _tensors_by_name(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:
        raise _unreadable(path, error) from error
    require_finite(tensors, f"checkpoint {path}")
    return tensors


def _tensors_by_name(loaded: Any) -> dict[str, Tensor]:
    if isinstance(loaded, dict) and all(isinstance(x, str) for x in loaded) and all(map(is_tensor, loaded.values())):
        return loaded
    raise TypeError("it is no dictionary of tensors by name")


def refuse_large_header(path: Path) -> None:
    """Do nothing if the header of a safetensors file has the size that a network's has.

    Raises:
        UserError: it is larger, and would cost memory and time to read.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > LARGEST_HEADER:
        raise UserError(f"checkpoint {path} cannot be read: its header has {size:,} bytes: give another file")


METADATA = "lcm_distill"
"""Key of the description, as JSON, in the metadata of a safetensors file."""
TENSORS_SHA256, SEAL = "tensors_sha256", "sha256"
"""Keys of two hashes in the description: of the tensors, and of the description with the first. Earlier versions wrote
none."""


def serialise(weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    """Weights as a safetensors file in the published key layout, with a description in its metadata.

    Args:
        weights: a model's `state_dict`.
        description: JSON; `role` is teacher or student, `model` the network's sizes. That of a student is
            `models.student.StudentDescription`.
    """
    from safetensors.torch import save

    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    described = {**description, TENSORS_SHA256: tensors_sha256(tensors)}
    return save(tensors, {METADATA: json.dumps({**described, SEAL: _description_sha256(described)})})


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
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"checkpoint {path} is missing: give the path of a .safetensors or .pt file")
    if path.suffix != ".safetensors":
        return {}, None
    refuse_large_header(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
        if not metadata.get(METADATA):
            if any(f'"{TENSORS_SHA256}"' in text for text in metadata.values()):
                raise _altered(path)  # the name of a description is damaged
            return {}, None
        described = json.loads(metadata[METADATA])
        if not isinstance(described, dict):
            raise ValueError("its description is no JSON object")
    except (SafetensorError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    seal, recorded = described.pop(SEAL, None), described.pop(TENSORS_SHA256, None)
    sealed = {**described, TENSORS_SHA256: recorded}
    if seal != (None if recorded is None else _description_sha256(sealed)):
        raise _altered(path)
    return described, recorded


def checkpoint_sha256(path: Path) -> str:
    """Identity of a checkpoint: hex SHA-256 of its tensors' names, dtypes, shapes and bytes.

    It does not depend on file format or description, so a student that is described anew is still the same. A file
    that has not changed since the last call is not read again.

    Raises:
        UserError: the file is missing or unreadable, or its tensors are not those that its description records.
    """
    _, recorded = _read_description(path)
    stat = path.stat()
    found = _sha256_as_of(path, stat.st_size, stat.st_mtime_ns)
    if recorded not in (None, found):
        raise _altered(path)
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
def _sha256_as_of(path: Path, size: int, modified: int) -> str:
    from safetensors import SafetensorError, safe_open

    del size, modified  # they distinguish a file that was replaced
    if path.suffix != ".safetensors":
        return tensors_sha256(read_tensors(path))
    refuse_large_header(path)
    try:
        with safe_open(path, "pt") as file:  # one tensor in memory at a time
            names = sorted(file.keys())
            return bytes_sha256(part for name in names for part in _parts(name, file.get_tensor(name)))
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def _description_sha256(description: Mapping[str, Any]) -> str:
    return bytes_sha256([json.dumps(description, sort_keys=True).encode()])


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(f"checkpoint {path} cannot be read ({reason}): {AGAIN}")


def _altered(path: Path) -> DataError:
    return DataError(f"checkpoint {path} is not what was written: {AGAIN}")


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
