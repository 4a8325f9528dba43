"""The files that weights come in: safetensors, one or sharded, and PyTorch's pickles, whatever they are called.

What reads no tensor of a safetensors file needs no PyTorch.
"""
# safetensors and NumPy have no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from lcm_distill.core.errors import UserError
from lcm_distill.core.json import parse_json
from lcm_distill.core.regular_files import open_regular, read_regular
from lcm_distill.core.weight_errors import INCOMPLETE, begins_otherwise, cannot_read
from lcm_distill.models.pickles import FIRST as FIRST_OF_PICKLE
from lcm_distill.models.pickles import metadata_of, tensors_in, unpickle
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

LARGEST_HEADER = 10_000_000
"""Bytes of a safetensors header; that of the largest network has 200,000, and reading costs memory and time."""


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
    """The form of a checkpoint that exists.

    Raises:
        DataError: it is empty.
    """
    with open_regular(path) as file:
        first = file.read(9)
    if not first:
        raise cannot_read(path, "it is empty")
    if path.name.lower().endswith(INDEX):
        return "sharded"
    if first[8:] == b"{":
        return "safetensors"
    if first.startswith(FIRST_OF_PICKLE):
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
        content = unpickle(path)
        tensors = tensors_in(unwrap(content, path), path)
        if not tensors:
            raise no_network(path, content)
        return {name: partial(tensor.to, device, copy=True) for name, tensor in tensors.items()}
    places = _places(path)
    handles = {file: _open(file, device) for file, _ in set(places.values())}
    return {name: partial(handles[file].get_tensor, stored) for name, (file, stored) in places.items()}


def tensor_names(path: Path) -> Collection[str]:
    """Published names of what a checkpoint's network holds; no tensor is read.

    Raises:
        UserError: as `network_weights`.
    """
    require_file(path)
    return unwrap(unpickle(path), path).keys() if form_of(path) == "pickle" else _places(path).keys()


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
    """Metadata of a safetensors file or of an index, and what `checkpoint.pickled` put into a pickle.

    Raises:
        UserError: the file is missing or unreadable.
    """
    require_file(path)
    match form_of(path):
        case "pickle":
            return metadata_of(unpickle(path))
        case "sharded":
            return _index(path).get("metadata") or {}
        case "safetensors":
            return _open(path).metadata() or {}


def _names(path: Path) -> list[str]:
    return list(_open(path).keys())


def _open(path: Path, device: "torch.device | None" = None) -> Any:
    from safetensors import SafetensorError, safe_open

    with open_regular(path) as file:
        first = file.read(9)
    size = int.from_bytes(first[:8], "little")
    if size > LARGEST_HEADER:
        of_safetensors = first[8:] == b"{"
        raise cannot_read(path, f"its header has {size:,} bytes" if of_safetensors else begins_otherwise(first[:4]))
    try:
        return safe_open(path, "pt", device=str(device)) if device else safe_open(path, "np")
    except SafetensorError as error:
        raise cannot_read(path, f"{INCOMPLETE}: {error}") from error
    except OSError as error:
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
