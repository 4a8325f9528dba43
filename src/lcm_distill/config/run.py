"""The configuration of a whole run."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from lcm_distill.config.assignments import Assignment
from lcm_distill.config.evaluation import EvaluateConfig, ScheduleConfig
from lcm_distill.config.inputs import CacheConfig, DataConfig, DiffusionConfig, EncodersConfig, ModelConfig
from lcm_distill.config.parsing import parse_section
from lcm_distill.config.section import NOT_IDENTITY, ROUNDS, SCHEMA_VERSION, Section, flatten, identity_of
from lcm_distill.config.training import DistillConfig, EngineConfig, PretrainConfig
from lcm_distill.core.hashing import digest


class Config(Section):
    """A whole run."""

    preset: str = Field(json_schema_extra=NOT_IDENTITY)
    """Name of the preset this came from."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Seed of all random numbers."""
    device: str = Field(default="auto", json_schema_extra=ROUNDS)
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1` ..., `mps` (Apple's Metal). Another kind of device
    rounds differently."""
    data: DataConfig
    encoders: EncodersConfig
    cache: CacheConfig = CacheConfig()
    model: ModelConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    engine: EngineConfig = EngineConfig()
    pretrain: PretrainConfig | None = None
    distill: DistillConfig
    schedule: ScheduleConfig = ScheduleConfig()
    evaluate: EvaluateConfig

    @model_validator(mode="after")
    def _resolutions_fit(self) -> Self:
        wanted, downsampling = self.data.resolutions, self.encoders.downsampling
        if odd := [pixels for pixels in wanted if pixels % downsampling]:
            raise ValueError(
                f"data.resolutions has {odd[0]}, which encoders.downsampling {downsampling} does not divide"
            )
        if len(set(wanted)) < len(wanted):
            raise ValueError(f"data.resolutions = {wanted} names a resolution twice")
        if self.resolution not in wanted:
            raise ValueError(
                f"model.latent_size {self.model.latent_size} stands for {self.resolution} px, "
                f"which data.resolutions = {wanted} lacks"
            )
        return self

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        edges, diffusion = self.distill.phased.edges, self.diffusion
        cuts = [diffusion.sigma_max, *edges, diffusion.sigma_min]
        if any(upper <= lower for upper, lower in pairwise(cuts)):
            raise ValueError(
                f"distill.phased.edges = {edges} must fall, and lie between diffusion.sigma_max {diffusion.sigma_max} "
                f"and diffusion.sigma_min {diffusion.sigma_min}"
            )
        return self

    @model_validator(mode="after")
    def _student_can_be_measured(self) -> Self:
        wanted = self.evaluate.student_steps
        if (edges := self.distill.objective_settings.phase_edges) is not None:
            steps = len(edges) + 1
            if wanted != [steps]:
                raise ValueError(
                    f"evaluate.student_steps = {wanted}, but with distill.objective phased the student samples in "
                    f"{steps} steps, one more than distill.phased.edges has: set evaluate.student_steps=[{steps}]"
                )
        return self

    @model_validator(mode="after")
    def _engine_fits(self) -> Self:
        if self.distill.objective_settings.forward_mode and self.engine.sharding == "fsdp":
            raise ValueError(
                "distill.objective scm takes derivatives in forward mode, which engine.sharding cannot: leave it unset"
            )
        return self

    @property
    def resolution(self) -> int:
        """Height and width of training images and generated images, in pixels."""
        return self.model.latent_size * self.encoders.downsampling

    @property
    def phases(self) -> list[float] | None:
        """Upper edges of the phases a student is trained within, falling; None without phases."""
        edges = self.distill.objective_settings.phase_edges
        return None if edges is None else [self.diffusion.sigma_max, *edges]

    @property
    def distill_seed(self) -> int:
        """Seed of the student's training."""
        return self.seed if self.distill.seed is None else self.distill.seed

    @property
    def generation_seed(self) -> int:
        """Seed of the noise that `lcm evaluate` generates images from."""
        return self.seed if self.evaluate.seed is None else self.evaluate.seed

    @property
    def stand_ins(self) -> list[str]:
        """Parts that are those of the embedded default, whose metrics compare with each other only."""
        return stand_ins_among({
            "data": self.data.source,
            "VAE": self.encoders.vae,
            "text encoder": self.encoders.text,
            "teacher": self.model.teacher,
        })  # fmt: skip

    def fingerprint(self, *sections: str) -> str:
        """16 hex digits over the seed, the schema version and every key of `sections` that changes results."""
        identity = {name: identity_of(getattr(self, name), fingerprint=True) for name in sections}
        return digest({"schema": SCHEMA_VERSION, "seed": self.seed, **identity})

    def deviations(self, other: "Config", sections: Iterable[str]) -> dict[str, tuple[Any, Any]]:
        """Own value and other's of every key of `sections` (or `seed`) that changes results and is not equal.

        A key that only one of them has, such as the noise levels of a number of steps, is None in the other.
        """
        ours, theirs = ({name: identity_of(getattr(config, name)) for name in sections} for config in (self, other))
        flat, other_flat = dict(flatten(ours)), dict(flatten(theirs))
        return {
            key: (flat.get(key), other_flat.get(key))
            for key in sorted(flat.keys() | other_flat.keys())
            if flat.get(key) != other_flat.get(key)
        }

    def differences(self, other: "Config", sections: Iterable[str], but: Collection[str] = ()) -> list[str]:
        """`deviations` in words, those of the keys in `but` left out: `key = value, not other's`."""
        deviations = self.deviations(other, sections)
        return [f"{key} = {own!r}, not {others!r}" for key, (own, others) in deviations.items() if key not in but]

    def other_data(self, other: "Config") -> list[str]:
        """In the words of `differences`: another folder of images, while this configuration's is still there."""
        root, others = self.data.root, other.data.root
        if root == others or (root is not None and not root.exists()):
            return []
        if root is not None and others is not None and root.resolve() == others.resolve():
            return []
        return [f"data.root = {_shown(root)}, not {_shown(others)}"]

    def sharing(self, other: "Config", root: Path) -> "Config":
        """This configuration with another run's cache, and with what must then be that run's.

        Args:
            other: configuration of the run in the folder `root`, which may use the cache of a further one.
        """
        cache = other.cache.model_copy(update={"location": None, "run": (other.cache.run or root).absolute()})
        taken = {"seed": other.seed, "data": other.data, "encoders": other.encoders, "cache": cache}
        return self.model_copy(update=taken)

    def changed(self, assignments: Sequence[Assignment], origin: str) -> "Config":
        """This configuration, changed by `section.key=value` assignments.

        Raises:
            UserError: a key or a value is wrong; the message begins with what the assignment was given as, or `origin`.
        """
        given = [(origin, assignment) if isinstance(assignment, str) else assignment for assignment in assignments]
        return parse_section(Config, self.to_toml(), origin, given)

    def to_toml(self) -> str:
        """The resolved configuration; loading it gives an equal one."""
        import tomli_w

        values = self.model_dump(mode="json", exclude_none=True)
        return tomli_w.dumps(values)


def stand_ins_among(parts: Mapping[str, str | None]) -> list[str]:
    """Those of some parts that are the embedded default's, by their names in the configuration; None is unknown."""
    return [part for part, name in parts.items() if name == "shapes"]


def _shown(path: Path | None) -> str:
    return "unset" if path is None else repr(str(path))
