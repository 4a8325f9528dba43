"""What commands vary for one time: checkpoints, the student's sampler, steps, guidance scales and models."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lcm_distill.commands.options import integers, numbers
from lcm_distill.core.errors import UserError

if TYPE_CHECKING:
    from lcm_distill.config import Config


def elsewhere(teacher: Path | None, sampler: str = "own") -> list[str]:
    """Assignments for a teacher's checkpoint from elsewhere and a sampler of the student."""
    assignments = [f"model.teacher={json.dumps(str(teacher))}"] if teacher else []
    return assignments + ([f"evaluate.student_sampler={sampler}"] if sampler != "own" else [])


def sweep(
    config: "Config", steps: str | None, teacher_steps: str | None, guidance: str | None, models: str | None
) -> list[str]:
    """Assignments for a sweep.

    Args:
        steps: of the student. teacher_steps: of the teacher, with every solver that it is configured with; without
            them it keeps its configured samplers, as a reference must stay what it is while students vary.

    Raises:
        UserError: an option is no list of numbers, or sets steps of a model that is left out.
    """
    chosen, assignments = models.split(",") if models else config.evaluate.models, list[str]()
    for option, model, text in (("--steps", "student", steps), ("--teacher-steps", "teacher", teacher_steps)):
        if text is not None and model not in chosen:
            other = "--teacher-steps" if model == "student" else "--steps"
            raise UserError(
                f"{option} {text} are steps of the {model}, which is not among the models ({','.join(chosen)}): give "
                f"{other}, or name the {model} in --models"
            )
    if guidance is not None:
        assignments.append(f"evaluate.guidance={numbers('--guidance', guidance)}")
    if models is not None:
        assignments.append(f"evaluate.models={chosen}")
    if steps is not None:
        assignments.append(f"evaluate.student_steps={integers('--steps', steps)}")
    if teacher_steps is not None:
        counts = integers("--teacher-steps", teacher_steps)
        solvers = dict.fromkeys(solver for solver, _ in config.evaluate.teacher)
        assignments.append(f"evaluate.teacher={[[solver, count] for solver in solvers for count in counts]}")
    return assignments
