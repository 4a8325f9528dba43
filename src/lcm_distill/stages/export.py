"""`lcm export`: a student as one file, safetensors or the original's `.pt`."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lcm_distill.config import Config
from lcm_distill.models.checkpoint import read_tensors, serialise
from lcm_distill.models.student import StudentDescription, recorded_description
from lcm_distill.pipeline.atomic import commit_bytes, commit_file, remove_orphans_of
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.checkpoints import Checkpoints
from lcm_distill.training.student import as_plain, fingerprint
from lcm_distill.training.student_networks import student_from_teacher

Form = Literal["safetensors", "pt"]


def export(config: Config, run: RunFolder, form: Form, out: Path | None = None) -> dict[str, Any]:
    """Write a run's student: the finished one, or the one that its newest checkpoint would publish.

    Args:
        out: `student-export.*` in the run folder if None.

    Returns:
        The file, the steps it was trained for, the configured steps and the number of tensors.

    Both formats have the published key layout. A safetensors file also records everything that sampling needs, so that
    `api.open_model` opens it alone.

    Raises:
        UserError: nothing is trained yet, or the checkpoints belong to other settings.
        DataError: every checkpoint is damaged.
    """
    step, weights = _weights(config, run)
    out = out or run.root / f"student-export.{form}"
    remove_orphans_of(out)
    if form == "pt":
        commit_file(out, partial(_save, weights))
    else:
        commit_bytes(out, serialise(weights, _description(config, run).to_json()))
    return {"file": str(out), "trained_steps": step, "of_steps": config.distill.steps, "tensors": len(weights)}


def _save(weights: dict[str, Tensor], path: Path) -> None:
    # Given a path, torch.save would write the temporary name into the file.
    with path.open("wb") as file:
        torch.save(weights, file)


def _description(config: Config, run: RunFolder) -> StudentDescription:
    if run.student.is_file():
        return recorded_description(config, run.student)
    return StudentDescription.of(config)


def _weights(config: Config, run: RunFolder) -> tuple[int, dict[str, Tensor]]:
    if run.student.is_file():
        return config.distill.steps, read_tensors(run.student)
    run.require(run.distill / "checkpoints", f"run `lcm distill` into {run.root} first")
    weights = student_from_teacher(config.model, config.distill).state_dict()
    name = "average" if config.distill.publish == "average" else "model"
    checkpoints = Checkpoints(run.distill / "checkpoints", fingerprint(config))
    step = checkpoints.load_latest(lambda: {f"{name}.{key}": tensor for key, tensor in weights.items()})
    return step or 0, dict(as_plain(config.distill, weights))
