"""Small trainings for the rows: a run to copy, and what a checkpoint holds."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from lcm_distill.training.checkpointing.index import read_index
from lcm_distill.training.checkpointing.storage import load_tensors
from tests.faults.commands import lcm

TINY = [
    "data.images=24", "data.valid_fraction=0.3", "cache.shard_rows=8", "encoders.batch_size=8", "distill.steps=4",
    "distill.batch_size=4", "distill.checkpoint_every=1", "distill.matching.weight=0",
    "distill.adversarial.weight=0", "engine.tensorboard=false",
    "evaluate.images=6", "evaluate.shard_images=2", "evaluate.batch_size=2", "evaluate.teacher=[['euler', 2]]",
    "evaluate.student_steps=[1]", "device=cpu", "pretrain.steps=3", "pretrain.batch_size=4",
    "pretrain.checkpoint_every=1", "engine.validation_images=4", "schedule.steps=[1, 2]", "schedule.samples=8",
]  # fmt: skip


def options(settings: Iterable[str]) -> list[str]:
    """Assignments as a command line has them."""
    return [word for setting in settings for word in ("--set", setting)]


def begin(root: Path, *stages: str, settings: list[str] = TINY) -> Path:
    """A new run of the shapes preset that has done these stages."""
    for number, stage in enumerate(stages):
        chosen = ["--preset", "shapes", *options(settings)] if number == 0 else []
        ended = lcm(stage, *chosen, "--run", root, seconds=600)
        assert ended.is_clean(0), ended
    return root


def copied(run: Path, place: Path) -> Path:
    """A copy of a run at `place`, where an earlier copy is replaced."""
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(run, place))


def checkpoints(training: Path) -> list[Path]:
    """The folders of a training's checkpoints, oldest first."""
    return sorted((training / "checkpoints").glob("step-*"))


def held_by(checkpoint: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint."""
    index = read_index(checkpoint)
    tensors = {name: torch.empty(held.shape, dtype=getattr(torch, held.dtype)) for name, held in index.items()}
    load_tensors(checkpoint, tensors)
    return tensors
