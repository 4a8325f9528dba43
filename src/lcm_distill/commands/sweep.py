"""What commands vary for one time: checkpoints, the student's sampler, steps, guidance scales and models."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lcm_distill import assets
from lcm_distill.commands.options import integers, numbers
from lcm_distill.core.errors import UserError

if TYPE_CHECKING:
    from lcm_distill.config import Config


Varied = tuple[str, str]
"""An option as it was given, such as `--guidance 1,2`, and the assignment that it stands for."""

WITH_STEPS = {"student": {"student", "untrained"}, "teacher": {"teacher"}}
"""Models that take the number of steps of one."""


def with_options(config: "Config", varied: Sequence[Varied]) -> "Config":
    """A configuration, changed for one time.

    Raises:
        UserError: a value is wrong; the message begins with its option.
    """
    for option, assignment in varied:
        config = config.changed([assignment], option)
    return config


def elsewhere(teacher: Path | None, sampler: str = "own") -> list[Varied]:
    """What stands for a teacher's checkpoint from elsewhere and a sampler of the student.

    Raises:
        UserError: there is no such file.
    """
    varied: list[Varied] = []
    if teacher is not None:
        option, path = f"--teacher {teacher}", assets.teacher(str(teacher))
        if not path.is_file():
            raise UserError(f"{option} is {'a folder' if path.is_dir() else 'missing'}: give a teacher's checkpoint")
        varied.append((option, f"model.teacher={json.dumps(str(teacher))}"))
    if sampler != "own":
        varied.append((f"--sampler {sampler}", f"evaluate.student_sampler={sampler}"))
    return varied


def sweep(
    config: "Config", steps: str | None, teacher_steps: str | None, guidance: str | None, models: str | None
) -> list[Varied]:
    """What stands for a sweep.

    Args:
        steps: of the student, trained or not. teacher_steps: of the teacher, with every solver that it is configured
            with; without them it keeps its configured samplers, as a reference stays what it is while students vary.

    Raises:
        UserError: an option is no list of numbers, or sets steps of a model that is left out.
    """
    chosen, varied = models.split(",") if models else config.evaluate.models, list[Varied]()
    for option, model, text in (("--steps", "student", steps), ("--teacher-steps", "teacher", teacher_steps)):
        if text is not None and not WITH_STEPS[model] & {*chosen}:
            other = "--teacher-steps" if model == "student" else "--steps"
            raise UserError(
                f"{option} {text} are steps of the {model}, which is not among the models ({','.join(chosen)}): give "
                f"{other}, or name the {model} in --models"
            )
    if guidance is not None:
        varied.append((f"--guidance {guidance}", f"evaluate.guidance={numbers('--guidance', guidance)}"))
    if models is not None:
        varied.append((f"--models {models}", f"evaluate.models={chosen}"))
    if steps is not None:
        varied.append((f"--steps {steps}", f"evaluate.student_steps={integers('--steps', steps)}"))
    if teacher_steps is not None:
        counts = integers("--teacher-steps", teacher_steps)
        solvers = dict.fromkeys(solver for solver, _ in config.evaluate.teacher)
        samplers = [[solver, count] for solver in solvers for count in counts]
        varied.append((f"--teacher-steps {teacher_steps}", f"evaluate.teacher={samplers}"))
    return varied
