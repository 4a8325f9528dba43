"""Strict loading and saving of MicroDiT weights, in the published key layout."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lcm_distill.errors import UserError
from lcm_distill.models.microdit import MicroDiT

GUIDANCE_PREFIX = "cfg_embedder."


def load_checkpoint(model: MicroDiT, path: str | Path) -> None:
    """Load `.safetensors` or `.pt` weights into `model`, strictly, casting to the model's dtype.

    A teacher's checkpoint has no guidance embedder. Loaded into a student, the student keeps its own, which
    starts at zero, so that it equals the teacher.

    Raises:
        UserError: the file is absent or unreadable, or keys are missing, unexpected or of another shape; the
            message lists them.
    """
    path = Path(path)
    tensors = read_tensors(path)
    wanted = model.state_dict()
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
    model.load_state_dict(tensors, strict=False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors by name, on the CPU; pickles are read with `weights_only`."""
    if not path.is_file():
        raise UserError(f"checkpoint {path} is missing: give the path of a .safetensors or .pt file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return cast(dict[str, Tensor], torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise UserError(f"checkpoint {path} cannot be read: {' '.join(str(error).split())[:200]}") from error


METADATA = "lcm_distill"


def serialise(weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    """Weights as a safetensors file in the published key layout, with a description to rebuild the model by.

    Args:
        weights: a model's `state_dict`.
        description: JSON; `model` holds the arguments of `build`, `role` says teacher or student.
    """
    from safetensors.torch import save

    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    return save(tensors, {METADATA: json.dumps(description)})


def read_description(path: Path) -> dict[str, Any]:
    """What `serialise` was told of a checkpoint; nothing for a file of another origin.

    Raises:
        UserError: the file is absent.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise UserError(f"checkpoint {path} is missing")
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(METADATA)
    return json.loads(text) if text else {}
