"""Which steps of a training have a checkpoint, by the names of their folders alone."""

import re
from pathlib import Path


def folder_of(checkpoints: Path, step: int) -> Path:
    """The checkpoint of a step in the folder of a training's checkpoints."""
    return checkpoints / f"step-{step:07d}"


def saved_steps(folder: Path) -> list[int]:
    """Steps with a checkpoint in the folder of a training's checkpoints, ascending."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name.removeprefix("step-")) for path in found if re.fullmatch(r"step-\d{7,}", path.name))
