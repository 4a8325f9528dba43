"""Networks of the configured sizes, and the teacher's."""

from pathlib import Path

import torch
from torch import Tensor

from lcm_distill import assets
from lcm_distill.config import ModelConfig, NetworkConfig
from lcm_distill.core.errors import UserError
from lcm_distill.models.building import build, build_empty
from lcm_distill.models.checkpoint import CPU, fill, read_teacher_tensors, refuse_student, require_fit
from lcm_distill.models.microdit import MicroDiT


def build_network(sizes: NetworkConfig, guidance_embedding: bool, empty: bool = False) -> MicroDiT:
    """A MicroDiT of the given sizes.

    Args:
        guidance_embedding: whether it takes guidance scales, as students and fake score networks do.
        empty: without weights, on the meta device, to be filled from a checkpoint; otherwise freshly initialised.

    Raises:
        UserError: no variant has the name `sizes.arch`.
    """
    return (build_empty if empty else build)(
        sizes.arch,
        sizes.latent_size,
        sizes.caption_channels,
        sizes.pos_interp_scale,
        sizes.in_channels,
        guidance_embedding,
    )


def teacher_path(model: ModelConfig) -> Path:
    """The teacher's checkpoint file, which may not exist."""
    return assets.teacher(model.teacher)


def require_teacher(model: ModelConfig, remedy: str) -> None:
    """Check that the teacher's checkpoint exists and is one of the configured sizes; no tensor is read.

    Args:
        remedy: where it is missing.

    Raises:
        UserError: it is missing, a folder, unreadable, a student's, or of other sizes.
    """
    path = teacher_path(model)
    if not path.exists():
        raise UserError(f"{path} is missing: {remedy}")
    refuse_student(path)
    require_fit(build_network(model, guidance_embedding=False, empty=True), path)


def read_teacher(model: ModelConfig, device: torch.device = CPU) -> dict[str, Tensor]:
    """The teacher's weights by name, on a device.

    A training reads them once, for the teacher and the networks that start from it.

    Raises:
        UserError: the checkpoint is missing or unreadable.
    """
    return read_teacher_tensors(teacher_path(model), device)


def build_teacher(model: ModelConfig, weights: dict[str, Tensor]) -> MicroDiT:
    """The frozen teacher, which shares the memory of `weights`.

    Raises:
        UserError: the weights do not fit the configured sizes.
    """
    teacher = build_network(model, guidance_embedding=False, empty=True)
    fill(teacher, weights, teacher_path(model))
    return teacher.eval().requires_grad_(False)


def load_teacher(model: ModelConfig) -> MicroDiT:
    """The frozen teacher from its checkpoint.

    Raises:
        UserError: the checkpoint is missing, unreadable or does not fit the configured sizes.
    """
    return build_teacher(model, read_teacher(model))
