# pyarrow ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false
"""The results of an evaluation: `metrics.parquet`, the grid, and figures against the guidance scale."""

from collections.abc import Sequence

import pyarrow as pa

from lcm_distill.config import Config
from lcm_distill.evaluation.image_grid import write_grid
from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.metric_rows import Rows, merged_metrics, metric_rows, real_image_rows, teacher_distance_rows
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.evaluation.reference_selection import Reference
from lcm_distill.evaluation.table_schemas import HARNESS, METRICS
from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.models.checkpoint_identity import checkpoint_sha256, untrained_sha256
from lcm_distill.models.networks import teacher_path
from lcm_distill.pipeline.atomic_writes import commit_bytes
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.guidance import guidance_panels, guidance_text
from lcm_distill.report.write_up import write_up


def write_results(
    config: Config,
    run: RunFolder,
    image_sets: Sequence[ImageSet],
    references: Sequence[Reference],
    prompts: Sequence[Prompt],
    responses: Rows = (),
) -> None:
    """Write the results of image sets that are generated and whose features are extracted.

    Args:
        image_sets: at least one at the first configured guidance scale, which the grid shows.
        references: one for each protocol; empty where nothing is measured.
        responses: rows of the student's response to the guidance scale.
    """
    measured = [metric_rows(image_set, references) for image_set in image_sets]
    rows = [
        *(row for of_set in measured for row in of_set),
        *teacher_distance_rows(image_sets, references),
        *real_image_rows(config, references),
        *responses,
    ]
    table = merged_metrics(run.metrics, rows)
    commit_bytes(run.metrics, encode_table(table))
    distances = [_distance(of_set, references) for of_set in measured]
    first = [number for number, each in enumerate(image_sets) if each.sampling.guidance == config.evaluate.guidance[0]]
    columns = [(image_sets[number], distances[number]) for number in first]
    write_grid(run.grid, columns, prompts)
    if len(config.evaluate.guidance) > 1 and rows:
        write_guidance(config, run, table.to_pylist(), rows)


def _distance(rows: Rows, references: Sequence[Reference]) -> str:
    """The Fréchet distance of an image set in words, under the first protocol that has one; empty where none has.

    Args:
        rows: of the image set.
    """
    for reference in references:
        figure, protocol = reference.extractor.traits.frechet_figure, reference.extractor.protocol
        for row in rows:
            if figure and (row["metric"], row["protocol"]) == (figure.name, protocol):
                style = FIGURE_STYLES.of(figure.name)
                return f"{style.title} {style.form.format(row['value'])}"
    return ""


def write_guidance(config: Config, run: RunFolder, known: Rows, measured: Rows) -> None:
    """Write `guidance.parquet`, `.md` and charts: known figures of the present checkpoints that compare with new ones.

    Args:
        known: rows of `metrics.parquet`. measured: the new ones among them.
    """
    harnesses = {tuple(row[name] for name in HARNESS) for row in measured}
    teacher = teacher_path(config.model)
    checkpoints = {checkpoint_sha256(path) for path in (run.student, teacher) if path.is_file()}
    checkpoints |= {untrained_sha256(teacher)} if teacher.is_file() else set()
    rows = [
        row
        for row in known
        if row["checkpoint_sha256"] in checkpoints and tuple(row[name] for name in HARNESS) in harnesses
    ]
    trained, stand_ins = config.distill.guidance_range, config.stand_ins
    write_up(
        run.guidance,
        pa.Table.from_pylist(rows, schema=METRICS),
        guidance_text(rows, trained, stand_ins, FIGURE_STYLES),
        guidance_panels(rows, trained, FIGURE_STYLES),
        stand_ins,
    )
