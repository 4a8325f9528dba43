"""What a student's checkpoint records of itself: everything that sampling from it needs, beside its weights."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from lcm_distill.config import Config, DiffusionConfig, NetworkConfig, Weights
from lcm_distill.config.ranges import Guidance, Sigma
from lcm_distill.core.errors import UserError
from lcm_distill.core.words import counted
from lcm_distill.diffusion.few_step_samplers import FewStepSampler, Original, Phased, few_step_sampler
from lcm_distill.diffusion.noise import fall_within, karras_sigmas
from lcm_distill.models.checkpoint_description import read_description
from lcm_distill.models.weight_files import tensor_names
from lcm_distill.models.weight_wrappers import ANCHOR, GUIDANCE_PREFIX, no_network

DEFAULT_STEPS = 4
"""Steps of a student that is not phased, where none are given."""
DEFAULT_GUIDANCE = 5.0
"""Guidance scale where none is given and no trained range is known, as in the original project."""

StudentSampler = Literal["own", "original"]
"""`own`: at recorded sigmas, or from edge to edge of phases. `original`: `diffusion.few_step_samplers.Original`."""


MOST_STEPS = 1000
"""Steps of one sampling, and numbers of steps that a student has sigmas for; far more than any is worth."""

Sigmas = Annotated[tuple[Sigma, ...], Field(min_length=1, max_length=MOST_STEPS)]


class _Record(BaseModel):
    """Part of a description; keys that later versions add are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class StudentSampling(_Record):
    """How a student is sampled from.

    Attributes:
        diffusion: sigma_data, sigma_min, sigma_max and rho that it was trained with.
        sigmas: sigmas of the multistep consistency sampler, falling, by number of steps.
        guidance_range: lowest and highest guidance scale that it was trained with; None if unknown.
        phases: upper edges of the phases that it was trained within, falling; None without phases.
        fresh_noise: whether steps after the first add fresh noise, without phases.
    """

    diffusion: DiffusionConfig = DiffusionConfig()
    sigmas: Annotated[dict[PositiveInt, Sigmas], Field(max_length=MOST_STEPS)] = {}
    guidance_range: tuple[Guidance, Guidance] | None = None
    phases: Sigmas | None = None
    fresh_noise: bool = True

    @model_validator(mode="after")
    def _sigmas_fall(self) -> Self:
        for steps, falling in self.sigmas.items():
            if len(falling) != steps or list(falling) != sorted(falling, reverse=True):
                raise ValueError(f"the sigmas of {steps} steps must be {steps} that fall")
        return self

    @property
    def default_steps(self) -> int:
        """Number of steps where none is given."""
        return len(self.phases) if self.phases else DEFAULT_STEPS

    @property
    def default_guidance(self) -> float:
        """Guidance scale where none is given: the middle of the trained range, or `DEFAULT_GUIDANCE`."""
        return sum(self.guidance_range) / 2 if self.guidance_range else DEFAULT_GUIDANCE

    def sampler(self, steps: int | None = None, kind: StudentSampler = "own") -> FewStepSampler:
        """The sampler of a number of steps, `default_steps` if None.

        A number of steps without sigmas of its own takes EDM's schedule, less its lowest sigma, from which a
        consistency step would change nothing. So does one whose sigmas lie outside the range of `diffusion`, as those
        of a configuration for other noise levels and of older checkpoints may; a warning says so.

        Raises:
            UserError: a student that was trained in phases has another number of them.
        """
        steps = self.default_steps if steps is None else steps
        if kind == "original":
            return Original(steps, self.diffusion.sigma_min, self.diffusion.sigma_max, self.diffusion.rho)
        sigma_min, sigma_max, rho = self.diffusion.sigma_min, self.diffusion.sigma_max, self.diffusion.rho
        if self.phases:
            if steps != len(self.phases):
                raise UserError(
                    f"{counted(steps, 'step is', 'steps are')} asked for: this student was trained in "
                    f"{counted(len(self.phases), 'phase')} and samples in {counted(len(self.phases), 'step')}"
                )
            return Phased(self.phases, sigma_min)
        if steps in self.sigmas and fall_within(self.sigmas[steps], sigma_min, sigma_max):
            return few_step_sampler(self.sigmas[steps], sigma_min, self.fresh_noise)
        if steps in self.sigmas:
            warnings.warn(
                f"this student's file or run has sigmas {list(self.sigmas[steps])} for {counted(steps, 'step')}, "
                f"outside the {sigma_min:g} to {sigma_max:g} that it was trained on: EDM's schedule is used; "
                "`lcm schedule` finds better ones and stores them in its file",
                stacklevel=2,
            )
        edms = tuple(map(float, karras_sigmas(steps + 1, sigma_min, sigma_max, rho)[:steps]))
        return few_step_sampler(edms, sigma_min, self.fresh_noise)

    def or_else(self, sigmas: Mapping[int, list[float]]) -> Self:
        """The same, with the given sigmas for numbers of steps that have none."""
        merged = {**{steps: tuple(falling) for steps, falling in sigmas.items()}, **self.sigmas}
        return self.model_copy(update={"sigmas": merged})


def require_sigmas(
    sigmas: Mapping[int, list[float]], diffusion: DiffusionConfig, key: str = "evaluate.student_sigmas"
) -> None:
    """Check that sigmas of the configuration lie within the range that a student is trained on.

    Args:
        key: that holds them.

    Raises:
        UserError: they do not.
    """
    without = "EDM's schedule" if key == "evaluate.student_sigmas" else "a search"
    for steps, falling in sigmas.items():
        if not fall_within(falling, diffusion.sigma_min, diffusion.sigma_max):
            raise UserError(
                f"{key}.{steps} = {falling} must fall from diffusion.sigma_max = "
                f"{diffusion.sigma_max:g} or below to diffusion.sigma_min = {diffusion.sigma_min:g} or above: set "
                f"{key}={{}} for {without}, or sigmas in that range"
            )


class StudentEncoders(_Record):
    """The encoders a student was trained with, by the names that `[encoders]` of the configuration gives them."""

    vae: str
    text: str
    downsampling: PositiveInt
    weights: Weights = "pretrained"


class StudentDescription(StudentSampling):
    """The description in a student's checkpoint.

    Attributes:
        model: sizes of the network.
        encoders: None in checkpoints of older versions, which also lack `diffusion`.
    """

    role: Literal["student"] = "student"
    model: NetworkConfig
    encoders: StudentEncoders | None = None

    @classmethod
    def of(cls, config: Config) -> Self:
        """That of a newly distilled student, whose sigmas are `evaluate.student_sigmas`."""
        return cls.model_validate({
            "model": config.model.model_dump(exclude={"teacher"}),
            "diffusion": config.diffusion,
            "encoders": config.encoders.model_dump(include={"vae", "text", "downsampling", "weights"}),
            "sigmas": config.evaluate.student_sigmas,
            "guidance_range": config.distill.guidance_range,
            "phases": config.phases,
            "fresh_noise": config.distill.fresh_noise,
        })  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As `models.checkpoint.serialise` takes it; `fresh_noise`, which came later, only where there is none."""
        return self.model_dump(mode="json", exclude={"fresh_noise"} if self.fresh_noise else None)


def read_student(path: Path) -> StudentDescription | None:
    """The description in a student's checkpoint; None in a file without one, such as a teacher's or one from elsewhere.

    Raises:
        UserError: the file is missing, unreadable or damaged, or its description is not valid.
    """
    description = read_description(path)
    if description.get("role") != "student":
        return None
    try:
        return StudentDescription.model_validate(description)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))[:100] or "a value"
        raise UserError(
            f"{path}: {key} of the student's description is not valid: {first['msg']}: give another file"
        ) from error


def refuse_teacher(path: Path) -> None:
    """Refuse a teacher's checkpoint: its description says so, or it has none and no guidance embedder.

    Raises:
        UserError: it is one, or holds no network; or as `read_student`.
    """
    described, reason = read_description(path), None
    if described.get("role") == "teacher":
        reason = "as its description says"
    elif not described:
        names = tensor_names(path)
        if ANCHOR not in names:
            raise no_network(path, dict.fromkeys(names))
        if not any(name.startswith(GUIDANCE_PREFIX) for name in names):
            reason = f"as it has no guidance embedder ({GUIDANCE_PREFIX}*)"
    if reason:
        raise UserError(
            f"{path} is a teacher's checkpoint, {reason}, and a student is wanted: give a student's, or give it as "
            "--teacher"
        )


def read_sampling(path: Path, diffusion: DiffusionConfig, or_teacher: bool = False) -> StudentSampling:
    """How the student of a checkpoint is sampled from.

    Args:
        diffusion: for a checkpoint that does not record its own.
        or_teacher: whether it may be a teacher's, whose equal a new student is.

    Raises:
        UserError: as `read_student`, or it is a teacher's.
    """
    if not or_teacher:
        refuse_teacher(path)
    student = read_student(path)
    if student is None:
        return StudentSampling(diffusion=diffusion)
    if "diffusion" not in student.model_fields_set:
        return student.model_copy(update={"diffusion": diffusion})
    return student


def recorded_description(config: Config, path: Path, trained_here: bool = True) -> StudentDescription:
    """The description in a student's checkpoint, completed from the configuration of a run where it lacks something.

    Args:
        trained_here: whether that run trained it; otherwise what only a training decides stays unknown.

    Raises:
        UserError: as `read_student`, or it is a teacher's.
    """
    refuse_teacher(path)
    student, complete = read_student(path), StudentDescription.of(config)
    if not trained_here:
        complete = complete.model_copy(update={"guidance_range": None, "phases": None, "sigmas": {}})
    if student is None:
        return complete
    return complete.model_copy(update={name: getattr(student, name) for name in student.model_fields_set})
