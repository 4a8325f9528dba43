"""Teacher and student networks as a configuration asks for them."""

from pathlib import Path
from typing import cast

from lcm_distill import assets
from lcm_distill.config import Config
from lcm_distill.models import MicroDiT, build, load_checkpoint
from lcm_distill.models.layers import ScalarEmbedder


def teacher_path(config: Config) -> Path:
    """The teacher's checkpoint file."""
    return assets.teacher(config.model.teacher)


def build_network(config: Config, guidance_embedding: bool) -> MicroDiT:
    """The configured transformer, freshly initialised."""
    model = config.model
    return build(
        model.arch,
        model.latent_size,
        model.caption_channels,
        model.pos_interp_scale,
        model.in_channels,
        guidance_embedding,
    )


def load_teacher(config: Config) -> MicroDiT:
    """The teacher, ready to be asked."""
    teacher = build_network(config, guidance_embedding=False)
    load_checkpoint(teacher, teacher_path(config))
    return teacher.eval().requires_grad_(False)


def student_from_teacher(config: Config) -> MicroDiT:
    """A student that equals its teacher at every guidance scale, unless its guidance embedder starts at random.

    With `distill.lora.rank` it has adapters, and they and its guidance embedder alone are to be trained.
    """
    student = build_network(config, guidance_embedding=True)
    embedder = cast(ScalarEmbedder, student.cfg_embedder)
    if config.distill.guidance_embedder == "random":
        embedder.initialise()
    else:
        embedder.initialise_around(config.distill.middle_guidance)
    load_checkpoint(student, teacher_path(config))
    if config.distill.lora.rank:
        from lcm_distill.stages.lora import adapt

        adapt(student, config.distill.lora)
    return student
