"""What commands vary for one time: checkpoints, the student's sampler, steps, guidance scales and models."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lcm_distill.commands.options import integers, numbers

if TYPE_CHECKING:
    from lcm_distill.config import Config


def elsewhere(teacher: Path | None, sampler: str = "own") -> list[str]:
    """Assignments for a teacher's checkpoint from elsewhere and a sampler of the student."""
    assignments = [f"model.teacher={json.dumps(str(teacher))}"] if teacher else []
    return assignments + ([f"evaluate.student_sampler={sampler}"] if sampler != "own" else [])


def sweep(config: "Config", steps: str | None, guidance: str | None, models: str | None) -> list[str]:
    """Assignments for a sweep; the teacher takes the steps with every solver that it is configured with.

    Raises:
        UserError: an option is no list of numbers.
    """
    assignments: list[str] = []
    if guidance is not None:
        assignments.append(f"evaluate.guidance={numbers('--guidance', guidance)}")
    if models is not None:
        assignments.append(f"evaluate.models={models.split(',')}")
    if steps is not None:
        counts = integers("--steps", steps)
        solvers = dict.fromkeys(solver for solver, _ in config.evaluate.teacher)
        teacher = [[solver, count] for solver in solvers for count in counts]
        assignments += [f"evaluate.student_steps={counts}", f"evaluate.teacher={teacher}"]
    return assignments
