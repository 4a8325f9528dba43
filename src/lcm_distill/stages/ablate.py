"""The chain of changes from the original recipe to ours: every step trained under several seeds, and measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.config.ablation import LAST, SECTIONS, Step
from lcm_distill.evaluation.features import extract
from lcm_distill.evaluation.image_sets import ImageSet, draw
from lcm_distill.evaluation.prompts import Prompt, find_prompts
from lcm_distill.evaluation.references import Reference, find_extractors, find_references
from lcm_distill.evaluation.results import METRICS, figures, floor_figure
from lcm_distill.evaluation.samplings import student_samplings, teacher_samplings
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.task import Progress
from lcm_distill.report.ablation import ablation_chart, ablation_text
from lcm_distill.report.write_up import write_up
from lcm_distill.stages.distill import distill
from lcm_distill.stages.precompute import precompute

ABLATION = pa.schema(
    [
        ("step", pa.string()),
        ("seed", pa.int64()),
        *(column.with_name("draw_seed") if column.name == "seed" else column for column in METRICS),
    ]
)
"""`metrics.parquet`'s columns, after the step of the chain and the seed of its training; teacher and real images have
neither. `draw_seed` is what is called `seed` there."""


@dataclass(frozen=True)
class Trial:
    """One training: a step under one seed.

    Attributes:
        run: a folder of its own, with the images and the cache that all share.
    """

    step: Step
    seed: int
    config: Config
    run: RunFolder

    @property
    def title(self) -> str:
        """As progress calls it."""
        return f"{self.step.name}, seed {self.seed}"

    def image_sets(self, prompts: Sequence[Prompt]) -> list[ImageSet]:
        """Its student's images; the student must be there."""
        return [ImageSet(self.config, self.run, sampling, prompts) for sampling in student_samplings(self.config)]


def trials(config: Config, run: RunFolder, steps: Sequence[Step], seeds: int) -> list[Trial]:
    """Every step under the first seed, then every step under the next; the first is the configuration's own."""
    return [
        Trial(step, seed, step_config(config, step, seed), RunFolder(run.ablation / step.name / f"seed-{seed}", run))
        for seed in range(config.distill_seed, config.distill_seed + seeds)
        for step in steps
    ]


def step_config(config: Config, step: Step, seed: int) -> Config:
    """The settings of a step: `config`, which is the default's, with what the step has otherwise."""
    return config.changed([*step.from_default, f"distill.seed={seed}"], f"step {step.name}")


def ablate(config: Config, run: RunFolder, steps: Sequence[Step], seeds: int) -> Iterator[Progress]:
    """Train and draw what is not done yet; write `ablation.parquet`, `.md` and `.png` of these steps and seeds.

    Opens `run`, once no training below it stands against that.

    Raises:
        UserError: a training that is already here has other settings, and nothing was changed; or there is no feature
            network to measure with.
    """
    chosen = trials(config, run, steps, seeds)
    for trial in chosen:
        trial.run.refuse_other_settings(trial.config)
    run.open(config)
    yield from precompute(config, run)
    prompts = find_prompts(config, run)
    extractors = find_extractors(config)
    references = yield from find_references(config, run, prompts, extractors)
    teachers = [ImageSet(config, run, sampling, prompts) for sampling in teacher_samplings(config)]
    yield from draw("draw teacher", teachers)
    yield from extract("measure teacher", teachers, extractors)
    for number, trial in enumerate(chosen, 1):
        trial.run.open(trial.config)
        title = f"{trial.title} ({number} of {len(chosen)})"
        for report in distill(trial.config, trial.run):
            yield replace(report, label=f"train {title}")
        yield from draw(f"draw {title}", trial.image_sets(prompts))
        yield from extract(f"measure {title}", trial.image_sets(prompts), extractors)
    rows = measure(config, references, chosen, teachers, prompts)
    chain, branches = ([step.name for step in steps if step.in_chain is wanted] for wanted in (True, False))
    write_up(
        run.ablation,
        pa.Table.from_pylist(rows, schema=ABLATION),
        ablation_text(rows, {step.name: sentence(config, step) for step in steps}, config.stand_ins),
        ablation_chart(rows, chain, branches, config.stand_ins),
    )


def measure(
    config: Config,
    references: Sequence[Reference],
    chosen: Sequence[Trial],
    teachers: Sequence[ImageSet],
    prompts: Sequence[Prompt],
) -> list[dict[str, Any]]:
    """Rows of `ablation.parquet` for finished drawings, teachers first and real images last."""
    real = {**floor_figure(config, references[0]), "steps": None, "guidance": None}
    return [
        *(_row(figure) for image_set in teachers for figure in figures(image_set, references)),
        *(
            _row(figure, trial.step.name, trial.seed)
            for trial in chosen
            for image_set in trial.image_sets(prompts)
            for figure in figures(image_set, references)
        ),
        _row(real),
    ]


def _row(figure: Mapping[str, Any], step: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """A row of `ablation.parquet` from one of `metrics.parquet`."""
    return {**figure, "draw_seed": figure["seed"], "step": step, "seed": seed}


def changes(config: Config, step: Step) -> list[str]:
    """How a step's settings differ from those of the step it is compared with, the first one's from the default's."""
    other = step_config(config, step.base, 0) if step.base else config.changed(["distill.seed=0"], LAST)
    return step_config(config, step, 0).differences(other, SECTIONS)


def sentence(config: Config, step: Step) -> str:
    """What a step changes, and why."""
    beside = "" if step.in_chain and step.base else f"Beside `{step.base.name if step.base else LAST}`. "
    return f"{beside}{step.why} ({', '.join(f'`{change}`' for change in changes(config, step))})"
