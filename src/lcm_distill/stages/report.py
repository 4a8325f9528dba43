"""One page about a run: what was run, what its models are worth, how training went, and what was left out."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lcm_distill.config import Config, load_preset, presets
from lcm_distill.config.describe import differing, shown_value
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.regular_files import read_regular
from lcm_distill.core.words import counted
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.encoding_rate import encoding_times
from lcm_distill.data.sources.record_validation import without_details
from lcm_distill.evaluation.image_grid import shown_images
from lcm_distill.evaluation.provenance import identities, unmeasured_images
from lcm_distill.evaluation.requirements import unmeasured
from lcm_distill.evaluation.scored_images import ScoredImage, best_and_worst
from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.pipeline.atomic_writes import (
    commit_bytes,
    remove_orphans_of,
    require_file_or_nothing,
    require_writable,
)
from lcm_distill.pipeline.run_folder import RunFolder, recorded_environment, recorded_platform, require_foreign
from lcm_distill.report.comparison import comparison_panels
from lcm_distill.report.figure_columns import of_images
from lcm_distill.report.grid import fit
from lcm_distill.report.guidance import guidance_panels
from lcm_distill.report.overview import MADE_BY, lacking_text, overview_lines
from lcm_distill.report.page import Section, charts, gallery, heading, image, numbered, page, paragraph, table
from lcm_distill.report.portable_paths import portable_path
from lcm_distill.report.tables import CAPTION, WARNING, figures_cells, stand_in_notice
from lcm_distill.report.time_spent import HEADINGS, TIMED, Spent, generating, generating_only, time_cells
from lcm_distill.report.training_curves import CURVES, training_panels
from lcm_distill.report.units import format_duration
from lcm_distill.stages.queries import inspect_view

STEPS = """SELECT count(*) AS steps, sum(seconds) AS seconds, sum(seconds * images_per_second) AS images FROM {view}
    HAVING count(images_per_second) > 0"""
WHOLE = "SELECT count(*) AS steps, sum(seconds) AS seconds FROM {view}"
Query = Callable[[str, str], list[dict[str, Any]]]
"""Rows of one view by an SQL query; none where the view has no file yet."""
NAME = "report.html"
POINTS = 400
"""Points of a curve; of longer trainings each is the mean of the steps around it."""
REASONS = 50
EXTREMES = 6
"""Best images, and worst images."""
CAPTIONS, STRIP = 3, 5
"""Captions whose images during training are shown, and steps of each at most."""
DIGITS = 16
"""Of a checkpoint's identity: as many as that of an untrained student has, which no file is."""
THUMBNAILS = (128, 256)
"""Width of single images at least and at most, in pixels."""


def report(config: Config, run: RunFolder, out: Path) -> None:
    """Write the page to `out`, in one HTML file.

    Raises:
        UserError: the run has nothing to show yet.
        DataError: a file of it is damaged.
        OSError: `out` is a folder, or cannot be written.
    """
    require_foreign(out)
    require_file_or_nothing(out)
    require_writable(out)
    query = partial(inspect_view, config, run)
    spent = _spent(config, run, query)
    sections = [
        Section("Figures", _figures(query, config.evaluate.guidance[0])),
        Section("Response to guidance", _guidance(query, config.distill.guidance_range)),
        Section("Images", _images(run)),
        Section("Best and worst images", _extremes(config, run)),
        Section("Images during training", _strips(run.distill / "validation")),
        Section("Training", _training(query, "events")),
        Section("Training of the teacher", _training(query, "pretrain_events")),
        Section("Where time went", [table(HEADINGS, time_cells(spent)), paragraph(TIMED)] if spent else []),
        Section("Data", _data(query)),
    ]
    if not any(section.parts for section in sections):
        raise UserError(f"{run.root} has nothing to show yet: begin with `lcm precompute --run {run.root}`")
    if not sections[-1].parts:
        sections[-1] = Section("Data", [paragraph(_no_manifest(run, Cache.open(config, run).storage.locate()))])
    sections.insert(0, Section("What was run", _overview(config, run, query, spent, sections)))
    sections += [
        Section("Configuration", _configuration(config, run)),
        Section("Provenance", _provenance(config, query, run)),
    ]
    remove_orphans_of(out)
    commit_bytes(out, page(f"Run {run.root.name}", stand_in_notice(config.stand_ins, "{}"), sections).encode())


def _overview(
    config: Config, run: RunFolder, query: Query, spent: Sequence[Spent], sections: Sequence[Section]
) -> list[str]:
    """When, where and how long, in the sections of the page what it lacks, and what makes that."""
    views = {"training of the teacher": "pretrain_events", "training": "events"}
    trainings = {name: row for name, view in views.items() for row in query(view, WHOLE.format(view=view))}
    times = [time for row in query("metrics", "FROM metrics") if (time := row.get("time"))]
    seconds, empty = sum(part.seconds for part in spent), {section.title for section in sections if not section.parts}
    lines = overview_lines(config.preset, config.device, recorded_platform(run), times, trainings, seconds)
    lacking = [name for name in MADE_BY if name.capitalize() in empty]
    said = [paragraph(lacking_text(lacking, run.root, unmeasured(config, run)))] if lacking else []
    return [table(["what", "value"], lines), *said]


def _figures(query: Query, guidance: float) -> list[str]:
    rows = query("metrics", "FROM metrics")
    if not rows:
        return []
    named = [{**row, "run": row["model"] if row["model"] == "student" else None} for row in of_images(rows)]
    real = [paragraph(CAPTION)] if any(row["model"] == "real" for row in rows) else []
    drawn = [charts("figures", comparison_panels(named, [guidance], FIGURE_STYLES))] if named else []
    return [*drawn, *_noted(*figures_cells(rows, FIGURE_STYLES)), *real]


def _noted(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """The table of figures, with numbers in place of warnings, and the warnings below it."""
    if headings[-1] != WARNING[1]:
        return [table(headings, cells)]
    warnings = [line[-1].split("; ") if line[-1] else [] for line in cells]
    notes = list(dict.fromkeys(warning for found in warnings for warning in found))
    numbers = [", ".join(str(notes.index(warning) + 1) for warning in found) for found in warnings]
    lines = [[*line[:-1], number] for line, number in zip(cells, numbers, strict=True)]
    return [table([*headings[:-1], "notes"], lines), numbered(notes)]


def _guidance(query: Query, trained: tuple[float, float]) -> list[str]:
    rows = query("guidance", "FROM guidance")
    return [charts("guidance", guidance_panels(rows, trained, FIGURE_STYLES))] if rows else []


def _images(run: RunFolder) -> list[str]:
    if not run.grid.is_file():
        return []
    content = read_regular(run.grid)
    try:
        with Image.open(io.BytesIO(content)) as grid:
            grid.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{run.grid} is damaged: `lcm evaluate --run {run.root}` writes it again") from error
    return [
        paragraph("The same captions and noise in every column, at the first guidance scale of the last evaluation."),
        image(content, "images of the models side by side"),
    ]


def _extremes(config: Config, run: RunFolder) -> list[str]:
    found = best_and_worst(config, run, EXTREMES)
    if found is None:
        return []
    order = f"by how well they show their captions, as protocol {found.protocol} scores it"
    parts = [paragraph(f"{found.title}: of {counted(found.images, 'image')}, {order}.")]
    for title, images, alike in (("Best", found.best, found.as_good), ("Worst", found.worst, found.as_bad)):
        shown = [(_thumbnail(scored.image), f"{scored.caption}; score {scored.score:.3g}") for scored in images]
        parts += [heading(title), *_tie(images, alike), gallery(shown)] if shown else []
    return parts


def _tie(images: Sequence[ScoredImage], alike: int) -> list[str]:
    """That others are as good, or as bad, as the last of the images that are shown."""
    last = images[-1].score
    if alike == sum(shown.score == last for shown in images):
        return []
    return [paragraph(f"{counted(alike, 'image has', 'images have')} score {last:.3g}: the first of them are shown.")]


def _strips(validations: Path) -> list[str]:
    """For each of a few captions the student's images at successive steps, and its teacher's.

    Args:
        validations: the folder that has one for each step.
    """
    found = [path for path in sorted(validations.glob("step-*/grid.png")) if path.parent.name[5:].isdigit()]
    grids = {int(path.parent.name[5:]): shown_images(path) for path in _spread(found, STRIP)}
    last = list(grids.values())[-1] if grids else {}
    student = next((title for title in last if title.startswith("student")), None)
    teacher = next((title for title in last if title.startswith("teacher")), None)
    if student is None:
        return []
    parts = [paragraph(f"The same captions and noise after so many steps of training: {student}.")]
    for caption in list(last[student])[:CAPTIONS]:
        steps = {f"step {step:,}": grid.get(student, {}).get(caption) for step, grid in grids.items()}
        strip = steps | ({teacher: last[teacher].get(caption)} if teacher else {})
        parts += [heading(caption), gallery([(_thumbnail(shown), text) for text, shown in strip.items() if shown])]
    return parts


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of them, evenly spread, with the first and the last."""
    if len(paths) <= count:
        return list(paths)
    return [paths[round(number * (len(paths) - 1) / (count - 1))] for number in range(count)]


def _thumbnail(content: Image.Image) -> bytes:
    """A PNG file of an image of moderate size."""
    smallest, largest = THUMBNAILS
    file = io.BytesIO()
    fit(np.asarray(content), min(max(content.width, smallest), largest)).save(file, format="PNG")
    return file.getvalue()


def _training(query: Query, view: str) -> list[str]:
    # Records of earlier versions lack some columns; `\0` is a column's name.
    means = f"avg(COLUMNS('^({'|'.join(CURVES)})$')) AS '\\0'"
    group = f"step * {POINTS} // (SELECT max(step) + 1 FROM {view})"
    sql = f"SELECT avg(step) AS step, {means} FROM {view} GROUP BY {group} ORDER BY 1"
    if not (rows := query(view, sql)):
        return []
    whole = query(view, WHOLE.format(view=view))[0]
    spent = f"{counted(whole['steps'], 'step')} in {format_duration(whole['seconds'] or 0)}."
    return [paragraph(spent), charts(view, training_panels(rows))]


def _spent(config: Config, run: RunFolder, query: Query) -> list[Spent]:
    trained = (
        Spent(stage, counted(row["steps"], "step"), row["seconds"], round(row["images"]))
        for stage, view in (("pretrain", "pretrain_events"), ("distill", "events"))
        for row in query(view, STEPS.format(view=view))
    )
    encoded = (
        Spent("precompute", kind, seconds, rows)
        for kind, (rows, seconds) in encoding_times(Cache.open(config, run).manifest).items()
    )
    generated = generating(query("metrics", "FROM metrics")), generating_only(unmeasured_images(run))
    parts = [*encoded, *trained, *chain(*generated)]
    return [part for part in parts if part.seconds]


def _data(query: Query) -> list[str]:
    counts = query("manifest", "SELECT kind, status, count(*) AS count FROM manifest GROUP BY ALL ORDER BY ALL")
    if not counts:
        return []
    reasons = query(
        "manifest",
        "SELECT status, error, count(*) AS count, min(source) AS example FROM manifest WHERE status <> 'ok' "
        "GROUP BY ALL ORDER BY error",
    )  # fmt: skip
    parts = [table(["kind", "status", "rows"], [list(row.values()) for row in counts])]
    if reasons:
        parts.append(table(["status", "reason", "rows", "for example"], _reasons(reasons)))
    return parts


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Status, reason without details, number and an example, the most frequent first."""
    found = dict[tuple[str, str], list[Any]]()
    for row in rows:
        reason = without_details(row["error"] or "")
        known = found.setdefault((row["status"], reason), [row["status"], reason, 0, row["example"]])
        known[2] += row["count"]
    return sorted(found.values(), key=lambda line: -line[2])[:REASONS]


def _no_manifest(run: RunFolder, place: str) -> str:
    """Why there are no counts of a data set: the cache is gone that a training has read, or there never was one."""
    if not run.begun:
        return f"There is no cache at {place}."
    return (
        f"The cache is missing: {place} holds no manifest. What the training has read, and what was left out of the "
        "data set, is not known without it."
    )


def _configuration(config: Config, run: RunFolder) -> list[str]:
    """What differs from the preset."""
    if config.preset not in presets():
        return []
    changed = differing(config, load_preset(config.preset))
    if not changed:
        return [paragraph(f"Preset {config.preset}, unchanged.")]
    rows = [
        [key, portable_path(shown_value(own), run.root), shown_value(preset)] for key, (own, preset) in changed.items()
    ]
    return [paragraph(f"Preset {config.preset}, with these changes."), table(["key", "here", "preset"], rows)]


def _provenance(config: Config, query: Query, run: RunFolder) -> list[str]:
    rows = [[name, release] for name, release in recorded_environment(run).items()]
    measured = query(
        "metrics",
        "SELECT DISTINCT model, checkpoint, checkpoint_sha256 FROM metrics WHERE checkpoint IS NOT NULL ORDER BY ALL",
    )  # fmt: skip
    known = [
        (what, portable_path(path, run.root), sha[:DIGITS] or "not recorded")
        for what, path, sha in identities(config, run, measured)
    ]
    parts = [table(["what", "release"], rows)] if rows else []
    return [*parts, table(["what", "file", f"identity, {DIGITS} digits of SHA-256"], known)] if known else parts
