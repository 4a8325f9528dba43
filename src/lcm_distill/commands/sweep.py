"""What `lcm evaluate` varies for one command: steps, guidance scales and models."""

from typing import TYPE_CHECKING

from lcm_distill.commands.options import integers, numbers

if TYPE_CHECKING:
    from lcm_distill.config import Config


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
