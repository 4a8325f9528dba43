"""The registry of objectives: how each is built from its table of the configuration, and what its step costs."""

from collections.abc import Callable
from dataclasses import dataclass

from lcm_distill.config import DiffusionConfig, DistillConfig
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.diffusion.objectives.discrete import Discrete
from lcm_distill.diffusion.objectives.interface import Objective
from lcm_distill.diffusion.objectives.pairs import PairLoss, l2, pseudo_huber
from lcm_distill.diffusion.objectives.phased import Phased
from lcm_distill.diffusion.objectives.scm import ContinuousTime
from lcm_distill.diffusion.objectives.tuning import Tuning
from lcm_distill.diffusion.samplers import SOLVERS


@dataclass(frozen=True)
class RegisteredObjective:
    """How an objective is built, and what it computes beside the student's trained pass.

    Attributes:
        build: the objective from the distillation's and the diffusion's settings.
        uses_solver: whether the teacher takes a step of `distill.solver`; otherwise it is evaluated once.
        student_forwards: forward passes of the student or its average in operations, such as that of the target.
    """

    build: Callable[[DistillConfig, DiffusionConfig], Objective]
    uses_solver: bool = True
    student_forwards: int = 1


def build_objective(settings: DistillConfig, diffusion: DiffusionConfig) -> Objective:
    """The configured objective."""
    return OBJECTIVES[settings.objective].build(settings, diffusion)


def teacher_evaluations(settings: DistillConfig) -> int:
    """Evaluations of the guided teacher for one sample of the objective."""
    return 2 if OBJECTIVES[settings.objective].uses_solver and settings.solver != "euler" else 1


def _pair_loss(settings: DistillConfig) -> PairLoss:
    distance = l2 if settings.distance == "l2" else pseudo_huber(settings.huber)
    return PairLoss(SOLVERS[settings.solver], distance)


def _tuning(settings: DistillConfig, diffusion: DiffusionConfig) -> Objective:
    own = settings.tuning
    return Tuning(
        _pair_loss(settings),
        own.gap_ratio,
        own.halvings,
        own.widening,
        own.weighting == "inverse_gap",
        diffusion.sigma_min,
        own.snap_below,
    )


def _discrete(settings: DistillConfig, diffusion: DiffusionConfig) -> Objective:
    schedule = karras_sigmas(settings.discrete.points, diffusion.sigma_min, diffusion.sigma_max, diffusion.rho)
    return Discrete(_pair_loss(settings), schedule[:-1].flip(0), settings.discrete.skip)


def _continuous_time(settings: DistillConfig, diffusion: DiffusionConfig) -> Objective:
    return ContinuousTime(diffusion.sigma_data, diffusion.sigma_min, settings.scm.normalisation, settings.scm.warmup)


def _phased(settings: DistillConfig, diffusion: DiffusionConfig) -> Objective:
    edges = (diffusion.sigma_min, *reversed(settings.phased.edges))
    return Phased(_pair_loss(settings), settings.phased.gap_ratio, edges)


OBJECTIVES: dict[str, RegisteredObjective] = {
    "tuning": RegisteredObjective(_tuning),
    "discrete": RegisteredObjective(_discrete),
    # A forward-mode derivative costs about two evaluations.
    "scm": RegisteredObjective(_continuous_time, uses_solver=False, student_forwards=2),
    "phased": RegisteredObjective(_phased),
}
"""By the name that `distill.objective` has. What an objective asks of a training (`ObjectiveConfig`), and whether it
calls a target network (`Objective.uses_target`), it states itself."""
