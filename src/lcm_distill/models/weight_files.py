"""The files that weights come in: safetensors, one or sharded, and PyTorch's pickles, whatever they are called.

A pickle is read with `weights_only`: no code in it is run. NumPy's arrays and a few plain types, which trainers save
beside the weights, are let through. What reads no tensor needs no PyTorch.
"""
# safetensors, NumPy and pickles have no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import argparse
import datetime
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.json import parse_json
from lcm_distill.core.regular_files import open_regular, read_regular
from lcm_distill.models.weight_wrappers import no_network, unwrap

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Form = Literal["safetensors", "sharded", "pickle"]

Load = Callable[[], "Tensor"]
"""Reads one tensor."""


class Stored(NamedTuple):
    """A tensor in a safetensors file: safetensors' name of its dtype, its shape, and its bytes, read when needed."""

    dtype: str
    shape: list[int]
    content: np.ndarray


INDEX = ".index.json"
"""Ending of the index of a checkpoint in several files, as the Hugging Face Hub has them."""

ACCEPTED = "give the path of a .safetensors file, its .index.json where it is sharded, or a .pt file"

AGAIN = "take another copy, or run the command that trained it again, which publishes it again"

LARGEST_HEADER = 10_000_000
"""Bytes of a safetensors header; that of the largest network has 200,000, and reading costs memory and time."""

_FIRST_OF_ZIP = b"PK\x03\x04"
_FIRST_OF_PICKLE = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5))
_rebuild, _scalar = np.array(0).__reduce__()[0], np.float64(0).__reduce__()[0]


def _plain_dictionary(*default: Any) -> dict[Any, Any]:
    """What stands for a `defaultdict`, whose items PyTorch would refuse."""
    del default
    return {}


PLAIN: list[Any] = [
    np.ndarray, np.dtype, *{type(np.dtype(code)) for code in np.typecodes["All"]},
    *((function, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")
      for function, name in ((_rebuild, "_reconstruct"), (_scalar, "scalar"))),
    datetime.timedelta, argparse.Namespace,
    (_plain_dictionary, "collections.defaultdict"),
    *((kind, f"builtins.{kind.__name__}") for kind in (list, dict, int, float, str, bool)),
]  # fmt: skip
"""What a pickle may hold beside tensors: NumPy's arrays and numbers, durations, the arguments of a command, and
dictionaries with the defaults of plain types."""


def require_file(path: Path) -> None:
    """Check that a checkpoint is there.

    Raises:
        UserError: it is missing, or a folder.
    """
    if path.is_dir():
        index = index_in(path)
        raise UserError(f"checkpoint {path} is a folder: {f'give {index}' if index else ACCEPTED}")
    if not path.is_file():
        raise UserError(f"checkpoint {path} is missing: {ACCEPTED}")


def index_in(folder: Path) -> Path | None:
    """The index of a sharded checkpoint in a folder, such as `lcm export --format sharded` writes, if there is one."""
    found = sorted(folder.glob(f"*{INDEX}"))
    return found[0] if len(found) == 1 else None


def form_of(path: Path) -> Form:
    """The form of a checkpoint that exists."""
    if path.name.lower().endswith(INDEX):
        return "sharded"
    with open_regular(path) as file:
        first = file.read(9)
    if first[8:] == b"{":
        return "safetensors"
    if first.startswith((_FIRST_OF_ZIP, *_FIRST_OF_PICKLE)):
        return "pickle"
    return "safetensors" if path.suffix.lower() == ".safetensors" else "pickle"


def files_of(path: Path) -> list[Path]:
    """All files of a checkpoint that exists: itself, and the shards that an index names.

    Raises:
        UserError: an index is not valid, or a shard is missing.
    """
    if form_of(path) != "sharded":
        return [path]
    return [path, *sorted({*_shards(path).values()})]


def network_weights(path: Path, device: "torch.device") -> Mapping[str, Load]:
    """The network of a checkpoint: by published name, what loads each tensor onto a device.

    Raises:
        UserError: the file is missing, unreadable, or holds no network or several.
    """
    require_file(path)
    if form_of(path) == "pickle":
        content = _unpickle(path)
        values = {name: _tensor(value) for name, value in unwrap(content, path).items()}
        _require_dense(values, path)
        found = {name: partial(value.to, device, copy=True) for name, value in values.items() if value is not None}
        if not found:
            raise no_network(path, content)
        return found
    places = _places(path)
    handles = {file: _open(file, device) for file, _ in set(places.values())}
    return {name: partial(handles[file].get_tensor, stored) for name, (file, stored) in places.items()}


def stored_tensors(path: Path) -> Mapping[str, Stored]:
    """The network of a checkpoint that is no pickle: each tensor by published name, as it is stored.

    Raises:
        UserError: as `network_weights`.
    """
    places = _places(path)
    held = {file: _stored_in(file) for file, _ in set(places.values())}
    return {name: held[file][stored] for name, (file, stored) in places.items()}


def _places(path: Path) -> dict[str, tuple[Path, str]]:
    """By published name, the safetensors file that holds a tensor, and its name there."""
    files = _shards(path) if form_of(path) == "sharded" else dict.fromkeys(_names(path), path)
    named = unwrap({stored: stored for stored in files}, path)
    return {name: (files[stored], stored) for name, stored in named.items()}


def _stored_in(file: Path) -> dict[str, Stored]:
    """What a safetensors file that could be opened holds, by stored name."""
    content = np.memmap(file, np.uint8, "r")
    begins = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = parse_json(content[8:begins].tobytes())
    header.pop("__metadata__", None)
    return {
        name: Stored(about["dtype"], about["shape"], content[begins:][slice(*about["data_offsets"])])
        for name, about in header.items()
    }


def file_metadata(path: Path) -> Mapping[str, str]:
    """Metadata of a safetensors file or of an index; empty for a pickle.

    Raises:
        UserError: the file is missing or unreadable.
    """
    require_file(path)
    match form_of(path):
        case "pickle":
            return {}
        case "sharded":
            return _index(path).get("metadata") or {}
        case "safetensors":
            return _open(path).metadata() or {}


def cannot_read(path: Path, error: Exception | str) -> DataError:
    """The error of a checkpoint that is not what it should be."""
    return DataError(f"checkpoint {path} cannot be read ({' '.join(str(error).split())[:200]}): {AGAIN}")


def _names(path: Path) -> list[str]:
    return list(_open(path).keys())


def _open(path: Path, device: "torch.device | None" = None) -> Any:
    from safetensors import SafetensorError, safe_open

    with open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
    if size > LARGEST_HEADER:
        raise cannot_read(path, f"its header has {size:,} bytes")
    try:
        return safe_open(path, "pt", device=str(device)) if device else safe_open(path, "np")
    except (OSError, SafetensorError) as error:
        raise cannot_read(path, error) from error


def _index(path: Path) -> dict[str, Any]:
    try:
        index = parse_json(read_regular(path).decode("utf-8-sig"))
        weight_map, metadata = index["weight_map"], index.get("metadata") or {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise cannot_read(path, f"it is no index of shards ({error!r})") from error
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise cannot_read(path, "its weight_map is no table of tensors and files")
    places = [Path(file) for file in weight_map.values()]
    if outside := next((file for file in places if file.is_absolute() or ".." in file.parts), None):
        raise cannot_read(path, f"its weight_map names {outside}, which is not in its folder")
    if not isinstance(metadata, dict):
        raise cannot_read(path, "its metadata are no table")
    return index


def _shards(path: Path) -> dict[str, Path]:
    """The file of every tensor in an index."""
    files = {name: path.parent / file for name, file in _index(path)["weight_map"].items()}
    for file in sorted({*files.values()}):
        if not file.is_file():
            raise UserError(f"{file} is missing, which {path} names: bring all shards into one folder")
        if form_of(file) != "safetensors":
            raise UserError(f"{file}, which {path} names, is no safetensors file: save the shards as safetensors")
    held = {file: {*_names(file)} for file in {*files.values()}}
    for name, file in files.items():
        if name not in held[file]:
            raise UserError(f"{file} holds no {name}, which {path} says it does: download both again")
        if twin := next((other for other in held if other != file and name in held[other]), None):
            raise UserError(f"{file} and {twin} both hold {name}: bring the shards of one checkpoint into one folder")
    return files


def _unpickle(path: Path) -> Mapping[str, Any]:
    import torch
    from torch.serialization import safe_globals

    with open_regular(path) as file:
        mapped = file.read(len(_FIRST_OF_ZIP)) == _FIRST_OF_ZIP  # optimiser states are never read then
    misnamed = path.suffix == ".safetensors"  # which PyTorch would believe
    try:
        with safe_globals(PLAIN), path.open("rb") as file:
            content = torch.load(
                file if misnamed else path, map_location="cpu", weights_only=True, mmap=mapped and not misnamed
            )
    except Exception as error:  # PyTorch's own and those of whatever bytes stand for
        raise cannot_read(path, _in_short(error)) from error
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise cannot_read(path, f"it holds a {type(content).__name__}, not tensors by name")
    return content


def _in_short(error: Exception) -> str:
    """A pickle's error in words of our own where it comes with PyTorch's advice to run whatever the file holds."""
    text = str(error)
    if "weights_only" not in text:
        return text
    if found := re.search(r"GLOBAL (\S+)", text):
        return f"it holds a {found[1]}, which is code and is not run; save its tensors alone"
    if found := re.search(r"got <class '([^']+)'|imported to load ([\w ]+)", text):
        return f"it holds {found[1] or found[2]} in a form that is not read; save its tensors alone"
    if "TorchScript" in text:
        return "it is a TorchScript archive, which is code and is not run; save its state_dict alone"
    _, _, operand = text.partition("Unsupported operand ")
    which = f" (instruction {operand.split()[0]})" if operand else ""
    return f"it holds something else than tensors and plain values{which}, which is not read; save its tensors alone"


def _tensor(value: Any) -> "Tensor | None":
    """A tensor or array as a tensor; None for anything else, such as a count of steps."""
    import torch

    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(np.ascontiguousarray(value))
    return value.detach() if isinstance(value, torch.Tensor) else None


def _require_dense(tensors: Mapping[str, "Tensor | None"], path: Path) -> None:
    """Check that a pickle's tensors hold as many real numbers as their shapes say; a copy would allocate those.

    Raises:
        DataError: one is sparse, quantised, complex or without values, or repeats what it holds.
    """
    import torch

    for name, tensor in tensors.items():
        if tensor is None:
            continue
        kinds = (tensor.layout != torch.strided, tensor.is_nested, tensor.is_quantized, tensor.is_complex())
        if any(kinds) or tensor.is_meta or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise cannot_read(path, f"{name} is no plain tensor of real numbers; save contiguous tensors")
