"""The networks of a distillation; all but the discriminator start from the teacher's weights."""

from typing import NamedTuple

import torch
from torch import Tensor

from lcm_distill.config import DistillConfig, ModelConfig
from lcm_distill.core.randomness import stable_hash
from lcm_distill.diffusion.objectives.interface import Objective
from lcm_distill.models import MicroDiT, fill
from lcm_distill.models.discriminator import Discriminator, blocks_with_heads
from lcm_distill.models.layers import ScalarEmbedder
from lcm_distill.models.networks import build_network, build_teacher, read_teacher, teacher_path
from lcm_distill.training.lora import adapt, copy_sharing_frozen


class DistillationNetworks(NamedTuple):
    """All networks of a distillation.

    Attributes:
        student: receives gradients.
        target: short moving average of the student, which computes the targets; None where the student itself does.
        average: long moving average of the student, which may be published. It is never called.
        teacher: frozen.
        critic: of distribution matching, receives gradients; None without it.
        discriminator: of the adversarial term, receives gradients; None without it.
    """

    student: MicroDiT
    target: MicroDiT | None
    average: MicroDiT
    teacher: MicroDiT
    critic: MicroDiT | None
    discriminator: Discriminator | None


def build_networks(
    model: ModelConfig, settings: DistillConfig, seed: int, objective: Objective, weights: dict[str, Tensor]
) -> DistillationNetworks:
    """All networks, from the teacher's weights and on their device; only frozen weights are shared.

    Args:
        seed: of the distillation.

    Raises:
        UserError: the weights do not fit the configured sizes.
    """
    torch.manual_seed(stable_hash(f"student {seed}"))  # pyright: ignore[reportUnknownMemberType]
    student = student_from_teacher(model, settings, weights)
    critic = guided_from_teacher(model, weights, settings.middle_guidance) if settings.matching.weight else None
    has_target = objective.uses_target and settings.target_decay > 0
    target = copy_sharing_frozen(student).requires_grad_(False) if has_target else None
    average = copy_sharing_frozen(student).requires_grad_(False)
    teacher = build_teacher(model, weights)
    discriminator = _discriminator(teacher, seed) if settings.adversarial.weight else None
    return DistillationNetworks(student, target, average, teacher, critic, discriminator)


def _discriminator(teacher: MicroDiT, seed: int) -> Discriminator:
    """Randomly initialised, on the CPU."""
    torch.manual_seed(stable_hash(f"discriminator {seed}"))  # pyright: ignore[reportUnknownMemberType]
    return Discriminator(teacher.variant.dim, len(blocks_with_heads(teacher)))


def student_from_teacher(
    model: ModelConfig, settings: DistillConfig, weights: dict[str, Tensor] | None = None
) -> MicroDiT:
    """A student at the start of its training.

    It equals its teacher at every guidance scale, unless `distill.guidance_embedder` is random. With
    `distill.lora.rank` it has adapters, and only these and its guidance embedder require gradients.

    Args:
        weights: the teacher's, which are copied; None reads them from its checkpoint.

    Raises:
        UserError: the teacher's checkpoint is missing, unreadable or does not fit the configured sizes.
    """
    centre = None if settings.guidance_embedder == "random" else settings.middle_guidance
    student = guided_from_teacher(model, read_teacher(model) if weights is None else weights, centre)
    if settings.lora.rank:
        adapt(student, settings.lora)
    return student


def guided_from_teacher(model: ModelConfig, weights: dict[str, Tensor], centre: float | None) -> MicroDiT:
    """A copy of the teacher with a guidance embedder, on the device of `weights`.

    Args:
        centre: the embedding starts at zero for every guidance scale and learns differences from this scale (see
            `ScalarEmbedder.initialise_around`); None initialises it at random.

    Raises:
        UserError: the weights do not fit the configured sizes.
    """
    network = build_network(model, guidance_embedding=True, empty=True)
    embedder = ScalarEmbedder(network.variant.dim)  # on the CPU: the same random numbers whatever the device
    if centre is None:
        embedder.initialise()
    else:
        embedder.initialise_around(centre)
    device = next(iter(weights.values())).device
    network.cfg_embedder = embedder.to(device)
    fill(network, {name: tensor.clone() for name, tensor in weights.items()}, teacher_path(model))
    return network
