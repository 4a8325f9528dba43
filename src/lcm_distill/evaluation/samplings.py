"""The samplings that are evaluated: which model, with which sampler, at which guidance scale."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lcm_distill.config import Config, DiffusionConfig, EvaluateConfig
from lcm_distill.config.evaluation import EvaluatedModel
from lcm_distill.core.errors import UserError
from lcm_distill.diffusion.few_step_samplers import FewStepSampler
from lcm_distill.diffusion.samplers import TEACHER_SAMPLERS, Sampler
from lcm_distill.models.student_description import StudentSampling, read_sampling, require_sigmas
from lcm_distill.report.tables import model_title, sampling_title, steps_title


@dataclass(frozen=True)
class Sampling:
    """One model with one sampler at one guidance scale."""

    model: EvaluatedModel
    sampler: Sampler
    guidance: float

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.sampler.steps

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Sigmas at which the steps begin, falling."""
        return self.sampler.sigmas

    @property
    def evaluations(self) -> int:
        """Network evaluations (NFE) per image."""
        return self.sampler.evaluations(guided=self.guidance != 1)

    @property
    def name(self) -> str:
        """Model, sampler and steps, as in names of folders."""
        return f"{self.model}-{self.sampler.name}-{self.steps}"

    @property
    def title(self) -> str:
        """Model, sampler and steps, as in headings."""
        return sampling_title(self.model, self.sampler.name, self.steps)

    @property
    def heading(self) -> str:
        """Two lines: the model, and its sampler and steps, as above columns of images."""
        return "\n".join([model_title(self.model), steps_title(self.sampler.name, self.steps)])


def samplings(config: Config, student: Path | None = None) -> list[Sampling]:
    """Every configured sampling, one guidance scale after the other, the teacher's first and the student's last.

    Args:
        student: the student's checkpoint; see `student_samplings`. An untrained student is sampled as that one is.
    """
    models, found = config.evaluate.models, list[Sampling]()
    for scale in config.evaluate.guidance:
        if "teacher" in models:
            found += teacher_samplings(config.evaluate, config.diffusion, scale)
        if "untrained" in models:
            found += [replace(trained, model="untrained") for trained in student_samplings(config, student, scale)]
        if "student" in models:
            found += student_samplings(config, student, scale)
    return found


def teacher_samplings(
    settings: EvaluateConfig, diffusion: DiffusionConfig, guidance: float | None = None
) -> list[Sampling]:
    """The teacher's samplings, at the first configured guidance scale or at another."""
    scale = settings.guidance[0] if guidance is None else guidance
    return [
        Sampling(
            "teacher",
            TEACHER_SAMPLERS[solver](steps, diffusion.sigma_min, diffusion.sigma_max, diffusion.rho),
            scale,
        )
        for solver, steps in settings.teacher
    ]


def student_samplings(config: Config, student: Path | None = None, guidance: float | None = None) -> list[Sampling]:
    """The student's samplings, at the first configured guidance scale or at another.

    Args:
        student: its checkpoint, whose sigmas are used; for numbers of steps that it has none for, and where there is no
            checkpoint yet, `evaluate.student_sigmas`, and where that has none, or none that the student was trained
            on, EDM's schedule.

    Raises:
        UserError: the checkpoint is unreadable, a phased student has another number of phases, or sigmas of the
            configuration lie outside its own noise levels.
    """
    scale = config.evaluate.guidance[0] if guidance is None else guidance
    return [Sampling("student", sampler, scale) for sampler in student_samplers(config, student)]


def student_samplers(config: Config, student: Path | None = None) -> list[FewStepSampler]:
    """The student's samplers; arguments and errors are those of `student_samplings`."""
    settings, known = config.evaluate, student_sampling(config, student)
    if known.diffusion == config.diffusion:  # other noise levels have their own rule, `StudentSampling.sampler`
        require_sigmas(settings.student_sigmas, config.diffusion)
    known = known.or_else(settings.student_sigmas)
    return [known.sampler(steps, settings.student_sampler) for steps in settings.student_steps]


def refuse_unused_sigmas(before: Mapping[int, list[float]], config: Config, student: Path) -> None:
    """Refuse a change of `evaluate.student_sigmas` that changes nothing: a student that is there has its own.

    Args:
        before: the run's `evaluate.student_sigmas` without the change.
        student: its checkpoint.

    Raises:
        UserError: the checkpoint has others for one of these numbers of steps, or is unreadable.
    """
    known = student_sampling(config, student).sigmas
    require_sigmas(config.evaluate.student_sigmas, config.diffusion)
    for steps, sigmas in config.evaluate.student_sigmas.items():
        if sigmas != before.get(steps) and sigmas != list(known.get(steps, sigmas)):
            raise UserError(
                f"evaluate.student_sigmas.{steps} = {sigmas} would change nothing, as {student} has sigmas of its own, "
                f"{list(known[steps])}: `lcm schedule` stores others in it, with --set 'schedule.steps=[{steps}]' "
                f"--set 'schedule.sigmas.{steps}={sigmas}' these"
            )


def student_sampling(config: Config, student: Path | None = None) -> StudentSampling:
    """How a student is sampled from: as its checkpoint records, and where there is none yet, as it will be trained.

    Raises:
        UserError: the checkpoint is unreadable.
    """
    if student is not None and student.exists():
        return read_sampling(student, config.diffusion)
    phases = tuple(config.phases) if config.phases else None
    return StudentSampling(diffusion=config.diffusion, phases=phases, fresh_noise=config.distill.fresh_noise)
