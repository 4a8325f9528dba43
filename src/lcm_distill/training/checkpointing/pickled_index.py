"""The index of checkpoints that earlier versions wrote: a pickle, of which nothing is executed.

Each class that such a pickle names is replaced by a record without behaviour, and any other name is refused.
"""

import io
import pickle
from typing import Any

import torch

PICKLED = ".metadata"

_METADATA, _FILES = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"
_RECORDS = {
    (_METADATA, "Metadata"),
    (_METADATA, "TensorStorageMetadata"),
    (_METADATA, "TensorProperties"),
    (_METADATA, "ChunkStorageMetadata"),
    (_METADATA, "MetadataIndex"),
    (_METADATA, "StorageMeta"),
    (_FILES, "_StorageInfo"),
}
_IGNORED = {
    (_METADATA, "_MEM_FORMAT_ENCODING"),
    ("builtins", "getattr"),  # how Python 3.11 names a member of that enumeration
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib._local", "PosixPath"),
}
"""Of members that say nothing about where tensors lie."""


class _Record:
    """What stands for an object of a pickle: its state, and nothing that could be called."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_pickled(content: bytes) -> dict[str, Any]:
    """The index in a pickle as `Index` is validated from.

    Raises:
        ValueError: it names anything else than the parts of an index, or is damaged.
    """
    try:
        state = _Records(io.BytesIO(content)).load().state
        places = {(key.state["fqn"], key.state["offset"]): info.state for key, info in state["storage_data"].items()}
        return {
            name: {
                "dtype": tensor.state["properties"].state[0],
                "shape": tensor.state["size"],
                "chunks": [_chunk(name, chunk.state, places) for chunk in tensor.state["chunks"]],
            }
            for name, tensor in state["state_dict_metadata"].items()
        }
    except _Refused as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # a damaged pickle ends in any error
        raise ValueError("it is damaged") from error


def _chunk(name: str, chunk: dict[str, Any], places: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    place = places[name, chunk["offsets"]]
    if place.get("transform_descriptors"):
        raise _Refused("its files are transformed")
    return {
        **chunk,
        "file": place["relative_path"],
        "start": place["offset"],
        "length": place["length"],
    }


class _Refused(Exception):
    """The pickle is no index."""


class _Records(pickle.Unpickler):
    """Builds records for the classes of an index, and refuses everything else."""

    def find_class(self, module: str, name: str, /) -> Any:
        """What a name in the pickle stands for."""
        if (module, name) in _RECORDS:
            return type(name, (_Record,), {})  # of this pickle alone: it may set what it likes on it
        if (module, name) in _IGNORED:
            return _nothing
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return name
        raise _Refused(f"it names {module}.{name}, which is not part of one and is not run")


def _nothing(*_: Any) -> None:
    """Stands for a value that is not read."""
