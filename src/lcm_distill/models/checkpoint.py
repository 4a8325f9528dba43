"""Strict loading and saving of MicroDiT weights, in the published key layout."""

import json
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcm_distill.core.errors import UserError
from lcm_distill.core.finite_weights import require_finite
from lcm_distill.core.hashing import json_sha256
from lcm_distill.core.weight_errors import cannot_read
from lcm_distill.models.checkpoint_description import (
    METADATA,
    SEAL,
    TENSORS_SHA256,
    read_description,
    read_description_and_hash,
)
from lcm_distill.models.checkpoint_identity import DTYPES, checkpoint_sha256, tensors_sha256
from lcm_distill.models.layers import ScalarEmbedder
from lcm_distill.models.microdit import MicroDiT
from lcm_distill.models.weight_files import form_of, network_weights, require_file, stored_tensors
from lcm_distill.models.weight_wrappers import ANCHOR, GUIDANCE_PREFIX, no_network

CPU = torch.device("cpu")
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
    _require_fit(model, tensors, path)
    wanted = dict[str, Tensor](model.state_dict())
    cast = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(cast, strict=False, assign=next(model.parameters()).is_meta)
    if model.cfg_embedder is not None and next(model.cfg_embedder.parameters()).is_meta:
        model.cfg_embedder = ScalarEmbedder(model.variant.dim)
        model.cfg_embedder.initialise_to_zero()


def require_fit(model: MicroDiT, path: Path) -> None:
    """Check that a checkpoint fits a model, which may be on the meta device, by names and shapes: no tensor is read.

    Raises:
        UserError: the file is missing or unreadable, or does not fit, as `fill` says.
    """
    tensors = _outline(path)
    if model.cfg_embedder is None:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(GUIDANCE_PREFIX)}
    _require_fit(model, tensors, path)


def _outline(path: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors by published name, without their content."""
    require_file(path)
    if form_of(path) == "pickle":
        return {name: load() for name, load in network_weights(path, torch.device("meta")).items()}
    return {
        name: torch.empty(stored.shape, dtype=getattr(torch, DTYPES.get(stored.dtype, "float32")), device="meta")
        for name, stored in stored_tensors(path).items()
    }


def _require_fit(model: MicroDiT, tensors: Mapping[str, Tensor], path: Path) -> None:
    if ANCHOR not in tensors:
        raise no_network(path, tensors)
    if problems := _misfits(dict[str, Tensor](model.state_dict()), tensors):
        shown, more = "; ".join(problems[:SHOWN]), len(problems) - SHOWN
        raise UserError(f"{path} does not fit the model: {shown}" + (f"; and {more} more" if more > 0 else ""))


def _misfits(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps tensors from being those that a model wants, in words; other shapes first."""
    if not any(name.startswith(GUIDANCE_PREFIX) for name in tensors):
        wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith(GUIDANCE_PREFIX)}
    shapes = [
        f"{name} has shape {tuple(tensors[name].shape)}, the model wants {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    shapes += [
        f"{name} holds {tensors[name].dtype}, the model wants floating-point numbers"
        for name in sorted(wanted.keys() & tensors.keys())
        if wanted[name].is_floating_point() and not tensors[name].is_floating_point()
    ]
    missing = [f"missing {name}" for name in sorted(wanted.keys() - tensors.keys())]
    return shapes + missing + [f"unexpected {name}" for name in sorted(tensors.keys() - wanted.keys())]


def read_tensors(path: Path, device: torch.device = CPU) -> dict[str, Tensor]:
    """A checkpoint's tensors by published name, on a device; see `weight_files` for what is read.

    Raises:
        UserError: the file is missing or holds no network.
        DataError: it is damaged, or has weights that are not finite.
    """
    if read_description_and_hash(path)[1] is not None:
        checkpoint_sha256(path)
    tensors = {name: load() for name, load in network_weights(path, device).items()}
    if packed := [name for name, tensor in tensors.items() if tensor.dtype == torch.float4_e2m1fn_x2]:
        raise cannot_read(path, f"{packed[0]} holds float4, which PyTorch does not compute with")
    require_finite(tensors, f"checkpoint {path}")
    return tensors


def read_teacher_tensors(path: Path, device: torch.device = CPU) -> dict[str, Tensor]:
    """`read_tensors` of a teacher, without a guidance embedder.

    The original system saved its teacher with the embedder that only its student uses. It is left out, with a warning.

    Raises:
        UserError: as `read_tensors`, or the file describes a student.
    """
    refuse_student(path)
    tensors = read_tensors(path, device)
    unused = [name for name in tensors if name.startswith(GUIDANCE_PREFIX)]
    if unused:
        warnings.warn(
            f"{path} has a guidance embedder ({unused[0]} ...), which no teacher uses: it is left out", stacklevel=2
        )
    return {name: tensor for name, tensor in tensors.items() if name not in unused}


def refuse_student(path: Path) -> None:
    """Refuse a checkpoint that says of itself that it is a student's; one without a description may be a teacher's.

    Raises:
        UserError: it does; or the file is missing, a folder or unreadable.
    """
    if read_description(path).get("role") == "student":
        raise UserError(
            f"{path} is a student's checkpoint, as its description says, and a teacher is wanted: give a teacher's"
        )


def serialise(weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    """Weights as a safetensors file in the published key layout, with a description in its metadata.

    Args:
        weights: a model's `state_dict`.
        description: JSON; `role` is teacher or student, `model` the network's sizes. That of a student is
            `models.student_description.StudentDescription`.
    """
    from safetensors.torch import save

    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    return save(tensors, {METADATA: seal_description(description, tensors)})


def pickled(weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> OrderedDict[str, Tensor]:
    """Weights for `torch.save`: a plain table of tensors in the published key layout, which carries a description.

    It is an attribute of the table, as `_metadata` is of a module's `state_dict`: `torch.load` restores it with
    `weights_only=True`, and `load_state_dict` takes the table as any other.

    Args:
        weights, description: as `serialise` takes them.
    """
    table = OrderedDict((name, tensor.cpu().contiguous()) for name, tensor in weights.items())
    vars(table)[METADATA] = seal_description(description, table)
    return table


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


def has_weights(path: Path, weights: Mapping[str, Tensor]) -> bool:
    """Whether a file is a readable checkpoint with exactly these weights."""
    try:
        return path.is_file() and checkpoint_sha256(path) == tensors_sha256(weights)
    except UserError:
        return False
