"""Teacher and student networks as a configuration asks for them."""

from pathlib import Path

import torch
from torch import Tensor

from lcm_distill import assets
from lcm_distill.config import Config
from lcm_distill.models import MicroDiT, build, build_empty, fill, read_tensors
from lcm_distill.models.checkpoint import CPU


def teacher_path(config: Config) -> Path:
    """The teacher's checkpoint file."""
    return assets.teacher(config.model.teacher)


def build_network(config: Config, guidance_embedding: bool, empty: bool = False) -> MicroDiT:
    """The configured transformer, freshly initialised, or empty: to be filled."""
    model = config.model
    return (build_empty if empty else build)(
        model.arch,
        model.latent_size,
        model.caption_channels,
        model.pos_interp_scale,
        model.in_channels,
        guidance_embedding,
    )


def load_teacher(config: Config) -> MicroDiT:
    """The teacher, ready to be asked."""
    return build_teacher(config, read_teacher(config))


def read_teacher(config: Config, device: torch.device = CPU) -> dict[str, Tensor]:
    """The teacher's weights, which its student, averages and critic start from as well: read once for all of them."""
    return read_tensors(teacher_path(config), device)


def build_teacher(config: Config, weights: dict[str, Tensor]) -> MicroDiT:
    """The teacher, ready to be asked; it has no copy of these weights."""
    teacher = build_network(config, guidance_embedding=False, empty=True)
    fill(teacher, weights, teacher_path(config))
    return teacher.eval().requires_grad_(False)
