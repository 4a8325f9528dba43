"""The ways of drawing that are measured: which model, with what sampler, in how many steps, at what guidance."""

from dataclasses import dataclass

from lcm_distill.config import Config
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.diffusion.samplers import network_evaluations
from lcm_distill.report.tables import sampling_title


@dataclass(frozen=True)
class Sampling:
    """One way of drawing.

    Attributes:
        sampler: a teacher's solver, `heun` or `euler`; a student's `consistency` or `phased`.
        sigmas: noise levels at which its steps begin, falling.
        evaluations: forward passes an image takes.
    """

    model: str
    sampler: str
    steps: int
    sigmas: tuple[float, ...]
    guidance: float
    evaluations: int

    @property
    def name(self) -> str:
        """As it is called in folders."""
        return f"{self.model}-{self.sampler}-{self.steps}"

    @property
    def title(self) -> str:
        """As it is called above an image."""
        return sampling_title(self.model, self.sampler, self.steps)


def samplings(config: Config) -> list[Sampling]:
    """Every configured way of drawing, at one guidance scale after the other, teachers first."""
    ways = {"teacher": teacher_samplings, "student": student_samplings}
    return [
        way
        for scale in config.evaluate.guidance
        for model in ("teacher", "student")
        if model in config.evaluate.models
        for way in ways[model](config, scale)
    ]


def teacher_samplings(config: Config, guidance: float | None = None) -> list[Sampling]:
    """Those of the teacher, at the first configured guidance scale or at another."""
    scale, levels = config.evaluate.guidance[0] if guidance is None else guidance, config.diffusion
    return [
        Sampling(
            "teacher", solver, steps,
            tuple(karras_sigmas(steps, levels.sigma_min, levels.sigma_max, levels.rho)[:-1].tolist()),
            scale, network_evaluations(solver, steps, scale != 1),
        )
        for solver, steps in config.evaluate.teacher
    ]  # fmt: skip


def student_samplings(config: Config, guidance: float | None = None) -> list[Sampling]:
    """Those of the student, at the first configured guidance scale or at another."""
    scale = config.evaluate.guidance[0] if guidance is None else guidance
    sigmas, edges = config.evaluate.student_sigmas, config.phases
    sampler = "phased" if edges else "consistency"
    return [
        Sampling("student", sampler, steps, tuple(edges or sigmas[steps]), scale, steps)
        for steps in config.evaluate.student_steps
    ]
