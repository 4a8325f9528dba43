"""Checkpoints as PyTorch saves them: pickles, read with `weights_only`, so that no code in them is run.

NumPy's arrays and a few plain types, which trainers save beside the weights, are let through.
"""
# NumPy and pickles have no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import argparse
import datetime
import pickletools
import re
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lcm_distill.core.regular_files import open_regular
from lcm_distill.core.weight_errors import INCOMPLETE, begins_otherwise, cannot_read

if TYPE_CHECKING:
    from torch import Tensor

_FIRST_OF_ZIP = b"PK\x03\x04"
FIRST = (_FIRST_OF_ZIP, *(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5)))
"""First bytes of a pickle, one of which it has: of a zip archive, and of PyTorch's oldest form."""
_PICKLES = 5
"""Pickles at the beginning of the oldest form."""
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


def unpickle(path: Path) -> Mapping[str, Any]:
    """What a checkpoint holds, by name.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    import torch
    from torch.serialization import safe_globals

    with open_regular(path) as file:
        first = file.read(len(_FIRST_OF_ZIP))
    mapped = first == _FIRST_OF_ZIP  # optimiser states are never read then
    misnamed = path.suffix == ".safetensors"  # which PyTorch would believe
    try:
        with safe_globals(PLAIN), path.open("rb") as file:
            content = torch.load(
                file if misnamed else path, map_location="cpu", weights_only=True, mmap=mapped and not misnamed
            )
    except Exception as error:  # PyTorch's own and those of whatever bytes stand for
        raise cannot_read(path, _flaw(path, first, error) or _in_short(error)) from error
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise cannot_read(path, f"it holds a {type(content).__name__}, not tensors by name")
    return content


def metadata_of(content: Mapping[str, Any]) -> dict[str, str]:
    """Texts that a table of tensors carries as attributes, which `torch.load` restores of an `OrderedDict`.

    Where it carries none, those of the only table in it, as in `{"state_dict": ...}`.
    """
    texts = {name: text for name, text in getattr(content, "__dict__", {}).items() if isinstance(text, str)}
    tables = [value for value in content.values() if isinstance(value, Mapping)]
    return metadata_of(tables[0]) if len(tables) == 1 and not texts else texts


def tensors_in(values: Mapping[str, Any], path: Path) -> dict[str, "Tensor"]:
    """The tensors and arrays among values, as tensors.

    Raises:
        DataError: one is no plain tensor of real numbers.
    """
    tensors = {name: tensor for name, value in values.items() if (tensor := _tensor(value)) is not None}
    _require_dense(tensors, path)
    return tensors


def _flaw(path: Path, first: bytes, error: Exception) -> str | None:
    """What is wrong with a file as such, whatever it holds; None if nothing is."""
    if any(begin.startswith(first) for begin in FIRST) and len(first) < len(_FIRST_OF_ZIP):
        return INCOMPLETE
    if not first.startswith(FIRST):
        return begins_otherwise(first)
    if isinstance(error, EOFError) or re.search("unexpected EOF|miniz", str(error)):
        return INCOMPLETE
    cut = _is_no_zip(path) if first == _FIRST_OF_ZIP else _ends_early(path)
    return INCOMPLETE if cut else None


def _is_no_zip(path: Path) -> bool:
    """Whether a file lacks the table at the end of a zip archive."""
    try:
        return not zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def _ends_early(path: Path) -> bool:
    """Whether one of the pickles that the oldest form begins with is no whole one."""
    with open_regular(path) as file:
        for _ in range(_PICKLES):
            if not file.peek(1):
                return False
            try:
                deque(pickletools.genops(file), maxlen=0)
            except ValueError:
                return True
    return False


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


def _require_dense(tensors: Mapping[str, "Tensor"], path: Path) -> None:
    """Check that a pickle's tensors hold as many real numbers as their shapes say; a copy would allocate those.

    Raises:
        DataError: one is sparse, quantised, complex or without values, or repeats what it holds.
    """
    import torch

    for name, tensor in tensors.items():
        kinds = (tensor.layout != torch.strided, tensor.is_nested, tensor.is_quantized, tensor.is_complex())
        if any(kinds) or tensor.is_meta or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise cannot_read(path, f"{name} is no plain tensor of real numbers; save contiguous tensors")
