"""Strict loading and saving of MicroDiT weights, in the published key layout."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcm_distill.core.errors import UserError
from lcm_distill.models.layers import ScalarEmbedder
from lcm_distill.models.microdit import MicroDiT

GUIDANCE_PREFIX = "cfg_embedder."
CPU = torch.device("cpu")


def load_checkpoint(model: MicroDiT, path: str | Path, own_positions: bool = False) -> None:
    """Fill a model with the weights of a `.safetensors` or `.pt` file; see `fill`.

    Args:
        own_positions: keep the model's position embedding, which is computed, so that a network may go on at another
            resolution.

    Raises:
        UserError: the file is absent or unreadable; or as `fill`.
    """
    path = Path(path)
    tensors = read_tensors(path)
    if own_positions:
        tensors |= {"pos_embed": model.pos_embed}
    fill(model, tensors, path)


def fill(model: MicroDiT, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a model weights, strictly, in its own dtypes.

    A model on the meta device takes the tensors themselves, so that nothing is initialised to be overwritten; any other
    copies them. A teacher's weights have no guidance embedder. With these a student keeps its own, which starts at
    zero, so that it equals the teacher.

    Args:
        path: where they come from, for the message.

    Raises:
        UserError: keys are missing, unexpected or of another shape; the message lists them.
    """
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
    cast = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(cast, strict=False, assign=next(model.parameters()).is_meta)
    if model.cfg_embedder is not None and next(model.cfg_embedder.parameters()).is_meta:
        model.cfg_embedder = ScalarEmbedder(model.variant.dim)
        model.cfg_embedder.initialise_to_zero()


def read_tensors(path: Path, device: torch.device = CPU) -> dict[str, Tensor]:
    """A checkpoint's tensors by name, on a device; pickles are read with `weights_only`."""
    if not path.is_file():
        raise UserError(f"checkpoint {path} is missing: give the path of a .safetensors or .pt file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path, device=str(device))
        return torch.load(path, map_location=device, weights_only=True)
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


def redescribe(path: Path, description: Mapping[str, Any]) -> bytes:
    """The weights of a `.safetensors` file under another description."""
    from safetensors.torch import save

    return save(read_tensors(path), {METADATA: json.dumps(description)})


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
