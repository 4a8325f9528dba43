# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""The chain of changes from the original recipe to ours: every step trained under several seeds, and measured."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.config.ablation import LAST, SECTIONS, Step
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.teacher_fit import require_fitting_teacher, teacher_remedy
from lcm_distill.evaluation.feature_extractors import ExtractorInfo
from lcm_distill.evaluation.features import extract_features
from lcm_distill.evaluation.guidance_response_measurement import ResponseComparison, measures_response, response_rows
from lcm_distill.evaluation.image_sets import ImageSet, generate_images, image_format
from lcm_distill.evaluation.metric_rows import metric_rows, real_image_rows
from lcm_distill.evaluation.prompts import HELD_OUT, Prompt, find_prompts
from lcm_distill.evaluation.reference_selection import Reference, find_references
from lcm_distill.evaluation.requirements import find_extractors, require_captions
from lcm_distill.evaluation.samplings import Sampling, student_samplings, teacher_samplings
from lcm_distill.evaluation.table_schemas import METRICS
from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.models.networks import require_teacher
from lcm_distill.pipeline.executors.interface import Executor
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.ablation import ablation_panels, ablation_text
from lcm_distill.report.write_up import write_up
from lcm_distill.stages.distill import distill
from lcm_distill.stages.precompute import precompute
from lcm_distill.stages.stage import Check, failures
from lcm_distill.training.checkpoints import Checkpoints

RISE_STEPS = 4
"""Steps of the students of the chain's last step whose captions are scored at other guidance scales as well."""
WAIT_SECONDS = 1.0
"""Between checks of the cache while another rank completes it."""

ABLATION = pa.schema(
    [
        ("step", pa.string()),
        ("seed", pa.uint64()),
        *(column.with_name("draw_seed") if column.name == "seed" else column for column in METRICS),
    ]
)
"""`metrics.parquet`'s columns, after the step of the chain and the seed of its training; both are null for teachers and
real images. `draw_seed` is what `metrics.parquet` calls `seed`."""


@dataclass(frozen=True)
class Trial:
    """One training: a step under one seed.

    Attributes:
        run: a folder of its own, with the data set and the cache that all trials share.
    """

    step: Step
    seed: int
    config: Config
    run: RunFolder

    @property
    def title(self) -> str:
        """Name in progress reports."""
        return f"{self.step.name}, seed {self.seed}"

    @property
    def samplings(self) -> list[Sampling]:
        """Those of its student, for the chain's last step at other guidance scales than the first as well."""
        found = student_samplings(self.config, self.run.student)
        for scale in self.config.evaluate.guidance[1:] if self.step.name == LAST else ():
            others = student_samplings(self.config, self.run.student, scale)
            found += [sampling for sampling in others if sampling.steps == RISE_STEPS]
        return found

    def image_sets(self, prompts: Sequence[Prompt]) -> list[ImageSet]:
        """Image sets of its student, which must be trained."""
        return [ImageSet(self.config, self.run, sampling, prompts) for sampling in self.samplings]


@dataclass(frozen=True)
class Measuring:
    """What all trials are measured with.

    Attributes:
        references: one for each extractor; empty on ranks other than the first.
    """

    prompts: Sequence[Prompt]
    extractors: Sequence[ExtractorInfo]
    references: Sequence[Reference]


def trials(config: Config, run: RunFolder, steps: Sequence[Step], seeds: int) -> list[Trial]:
    """Every step under the first seed, then every step under the next; the first is the configuration's own."""
    return [
        Trial(step, seed, step_config(config, step, seed), RunFolder(run.ablation / step.name / f"seed-{seed}", run))
        for seed in range(config.distill_seed, config.distill_seed + seeds)
        for step in steps
    ]


def step_config(config: Config, step: Step, seed: int) -> Config:
    """The settings of a step under a seed: `config`, which is the default's, with the step's assignments."""
    return config.changed([*step.from_default, f"distill.seed={seed}"], f"step {step.name}")


def ablate(
    config: Config, run: RunFolder, steps: Sequence[Step], seeds: int, executor: Executor | None = None
) -> Iterator[Progress]:
    """Train, generate and measure what is missing; write `ablation.parquet`, `.md` and `.png` of these steps and seeds.

    Args:
        executor: encodes the data set, generates images and extracts features.

    Raises:
        UserError: a training that is already here has other settings, and nothing was changed; or something is missing
            that training or measuring needs, and nothing was trained.
    """
    executor = executor or Serial()
    chosen = trials(config, run, steps, seeds)
    extractors = find_requirements(config, run, chosen)
    yield from precompute(config, run, executor)
    samplings = teacher_samplings(config.evaluate, config.diffusion)
    measured = {sampling.guidance for trial in chosen for sampling in trial.samplings}
    for scale in config.evaluate.guidance[1:]:
        samplings += teacher_samplings(config.evaluate, config.diffusion, scale)[:1] if scale in measured else []
    measuring = yield from _find_measuring(config, run, extractors, executor)
    teachers = [ImageSet(config, run, sampling, measuring.prompts) for sampling in samplings]
    yield from _measure("teacher", teachers, measuring, executor)
    for number, trial in enumerate(chosen, 1):
        yield from _train(trial, f"{trial.title} ({number} of {len(chosen)})", measuring, executor)
    if executor.leads:
        responses = yield from _responses(config, measuring, chosen)
        _write_results(config, run, steps, [*ablation_rows(config, measuring, teachers, chosen), *responses])


def find_requirements(config: Config, run: RunFolder, chosen: Sequence[Trial]) -> list[ExtractorInfo]:
    """The feature extractors, once all that can be checked before the first training is known to be there.

    Raises:
        UserError: a training that is already here has other settings; a protocol, its weights or its reference are
            missing or do not fit together; the teacher's checkpoint or the file of captions is missing; the teacher
            knows nothing of the images; or a step generates no images.
    """
    for trial in chosen:
        trial.run.refuse_other_settings(trial.config)
    extractors = find_extractors(config.evaluate)
    image_format(config.evaluate)
    require_fitting_teacher(config, run)
    require_teacher(config.model, teacher_remedy(config, run))
    if idle := [trial for trial in chosen if not student_samplings(trial.config)]:
        raise UserError(f"evaluate.student_steps of step {idle[0].step.name} is empty: name the numbers of steps")
    if config.evaluate.prompts != HELD_OUT:
        prompts = find_prompts(config, run)
        for extractor in extractors:
            require_captions(extractor.traits, prompts)
    return extractors


def _find_measuring(
    config: Config, run: RunFolder, extractors: Sequence[ExtractorInfo], executor: Executor
) -> Generator[Progress, None, Measuring]:
    """Prompts and references, which need the cache.

    Raises:
        UserError: a protocol cannot measure one of the captions.
    """
    if not executor.leads:
        _wait_for_cache(Cache.open(config, run))
    prompts = find_prompts(config, run)
    for extractor in extractors:
        require_captions(extractor.traits, prompts)
    references = (yield from find_references(config, run, prompts, extractors)) if executor.leads else []
    return Measuring(prompts, extractors, references)


def _wait_for_cache(cache: Cache) -> None:
    """Wait until the other ranks have committed their share of the cache; the first rank fails if they do not."""
    tasks, manifest = cache.tasks(), cache.manifest
    while len(manifest.done(tasks)) < len(tasks):
        time.sleep(WAIT_SECONDS)


def _train(trial: Trial, title: str, measuring: Measuring, executor: Executor) -> Iterator[Progress]:
    """Train a trial's student and measure it."""
    trial.run.open(trial.config)
    for report in distill(trial.config, trial.run):
        yield replace(report, label=f"train {title}")
    yield from _measure(title, trial.image_sets(measuring.prompts), measuring, executor)


def _measure(
    title: str, image_sets: Sequence[ImageSet], measuring: Measuring, executor: Executor
) -> Iterator[Progress]:
    """Generate images and extract their features."""
    yield from generate_images(f"generate {title}", image_sets, executor)
    yield from extract_features(f"measure {title}", image_sets, measuring.extractors, executor)


def ablation_rows(
    config: Config, measuring: Measuring, teachers: Sequence[ImageSet], chosen: Sequence[Trial]
) -> list[dict[str, Any]]:
    """Rows of `ablation.parquet` for image sets whose features are extracted: teachers, students, real images."""
    references = measuring.references
    return [
        *(_row(figure) for image_set in teachers for figure in metric_rows(image_set, references)),
        *(
            _row(figure, trial.step.name, trial.seed)
            for trial in chosen
            for image_set in trial.image_sets(measuring.prompts)
            for figure in metric_rows(image_set, references)
        ),
        *(_row({**figure, "steps": None, "guidance": None}) for figure in real_image_rows(config, references)),
    ]


def _responses(
    config: Config, measuring: Measuring, chosen: Sequence[Trial]
) -> Generator[Progress, None, list[dict[str, Any]]]:
    """Rows of `ablation.parquet` of every student's response to the guidance scale, if there are several scales."""
    rows: list[dict[str, Any]] = []
    if not measures_response(config.evaluate):
        return rows
    comparison = ResponseComparison(config, measuring.prompts)
    for trial in chosen:
        figures = yield from response_rows(comparison, trial.config, trial.run, f"respond {trial.title}")
        rows += [_row(figure, trial.step.name, trial.seed) for figure in figures]
    return rows


def _row(figure: Mapping[str, Any], step: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """A row of `ablation.parquet` from one of `metrics.parquet`."""
    return {**figure, "draw_seed": figure["seed"], "step": step, "seed": seed}


def _write_results(config: Config, run: RunFolder, steps: Sequence[Step], rows: Sequence[Mapping[str, Any]]) -> None:
    chain, branches = ([step.name for step in steps if step.in_chain is wanted] for wanted in (True, False))
    write_up(
        run.ablation,
        pa.Table.from_pylist(list(rows), schema=ABLATION),
        ablation_text(rows, {step.name: sentence(config, step) for step in steps}, config.stand_ins, FIGURE_STYLES),
        ablation_panels(rows, chain, branches, FIGURE_STYLES),
        config.stand_ins,
    )


def changes(config: Config, step: Step) -> list[str]:
    """How a step's settings differ from those of the step it is compared with; the first step's from the default's."""
    other = step_config(config, step.base, 0) if step.base else config.changed(["distill.seed=0"], LAST)
    return step_config(config, step, 0).differences(other, SECTIONS)


def sentence(config: Config, step: Step) -> str:
    """What a step changes and why, with the step it branches off."""
    beside = "" if step.in_chain and step.base else f"Beside `{step.base.name if step.base else LAST}`. "
    return f"{beside}{step.why} ({', '.join(f'`{change}`' for change in changes(config, step))})"


def plan_ablation(config: Config, run: RunFolder, steps: Sequence[Step], seeds: int) -> dict[str, Any]:
    """Steps with what each changes, and how far each seed's training has come.

    Raises:
        UserError: a training that is already here has other settings.
    """
    chosen = trials(config, run, steps, seeds)
    for trial in chosen:
        trial.run.refuse_other_settings(trial.config)
    checks: list[Check] = [lambda: Cache.open(config, run).source_root, lambda: find_requirements(config, run, chosen)]
    return {
        "trainings": len(chosen),
        "done": sum(trial.run.student.is_file() for trial in chosen),
        "images": config.evaluate.images * sum(len(trial.samplings) for trial in chosen),
        "steps": [
            {
                "step": step.name,
                "beside": step.base.name if step.base else LAST,
                "changes": changes(config, step),
                "trained_steps": {trial.seed: _trained_steps(trial.run) for trial in chosen if trial.step == step},
                "of_steps": config.distill.steps,
            }
            for step in steps
        ],
        "missing": failures(checks),
    }


def _trained_steps(run: RunFolder) -> int:
    return max(Checkpoints(run.distill / "checkpoints", "").steps(), default=0)
