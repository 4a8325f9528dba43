"""Teacher and student networks as a configuration asks for them."""

from pathlib import Path

import torch
from torch import Tensor

from lcm_distill import assets
from lcm_distill.config import Config
from lcm_distill.models import MicroDiT, build, build_empty, fill, read_tensors
from lcm_distill.models.checkpoint import CPU
from lcm_distill.models.layers import ScalarEmbedder


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


def student_from_teacher(config: Config, weights: dict[str, Tensor] | None = None) -> MicroDiT:
    """A student that equals its teacher at every guidance scale, unless its guidance embedder starts at random.

    With `distill.lora.rank` it has adapters, and they and its guidance embedder alone are to be trained.

    Args:
        weights: the teacher's, of which it has a copy; None reads them.
    """
    centred = config.distill.guidance_embedder != "random"
    student = guided_from_teacher(config, read_teacher(config) if weights is None else weights, centred)
    if config.distill.lora.rank:
        from lcm_distill.stages.lora import adapt

        adapt(student, config.distill.lora)
    return student


def guided_from_teacher(config: Config, weights: dict[str, Tensor], centred: bool = True) -> MicroDiT:
    """The teacher once more, with a copy of its weights and a guidance embedder.

    Args:
        centred: the embedding starts as zero whatever the scale, ready to learn how scales differ from the middle of
            the range; otherwise it starts at random.
    """
    network = build_network(config, guidance_embedding=True, empty=True)
    # On the CPU: the same numbers whatever the device.
    embedder = ScalarEmbedder(network.variant.dim)
    if centred:
        embedder.initialise_around(config.distill.middle_guidance)
    else:
        embedder.initialise()
    device = next(iter(weights.values())).device
    network.cfg_embedder = embedder.to(device)
    fill(network, {name: tensor.clone() for name, tensor in weights.items()}, teacher_path(config))
    return network
