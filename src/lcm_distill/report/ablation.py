"""What a chain of changes gains: headline figures, a table and a chart.

Rows are those of `ablation.parquet`: a step of the ablation, a seed of training, and one figure of `metrics.parquet`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from lcm_distill.report.charts import Line, Panel, draw_chart
from lcm_distill.report.tables import markdown_table, sampling_title, stand_in_notice

FRECHET, CAPTIONS = "frechet_distance", "caption_accuracy"
METRICS = ((FRECHET, "Fréchet distance", "{:.2f}"), (CAPTIONS, "caption accuracy", "{:.1%}"))
FIRST, LAST = "original", "default"
"""Names of the steps that headline figures compare."""

Rows = Sequence[Mapping[str, Any]]


def headline(rows: Rows) -> dict[str, float]:
    """The figures that sum an ablation up, of means over seeds; one whose rows were not run is left out.

    Ratios are of Fréchet distances. `caption_gap_points` is the teacher's caption accuracy less the default student's
    in four steps, in percentage points. The teacher is the first one of the rows.
    """
    teacher, teacher_hits = (_values(rows, metric, model="teacher")[:1] for metric in (FRECHET, CAPTIONS))
    first, one, four = (
        _values(rows, FRECHET, step=step, steps=steps) for step, steps in ((FIRST, 1), (LAST, 1), (LAST, 4))
    )
    hits = _values(rows, CAPTIONS, step=LAST, steps=4)
    ratios = {
        "original_over_ours_1step": (first, one),
        "ours_over_teacher_4step": (four, teacher),
        "ours_over_teacher_1step": (one, teacher),
    }
    figures = {name: mean(over) / mean(under) for name, (over, under) in ratios.items() if over and under}
    if teacher_hits and hits:
        figures["caption_gap_points"] = 100 * (mean(teacher_hits) - mean(hits))
    return figures


def headline_text(rows: Rows) -> str:
    """`headline` in one line, `name=value` with four digits."""
    return " ".join(f"{name}={value:.4g}" for name, value in headline(rows).items())


def ablation_text(rows: Rows, sentences: Mapping[str, str], stand_ins: Sequence[str]) -> str:
    """Markdown: a row a step with mean and spread over seeds, the teacher and real images, what each step adds.

    Args:
        sentences: what each step adds, by name, in order.
    """
    seeds, images = len({row["seed"] for row in rows if row["seed"] is not None}), max(row["images"] for row in rows)
    guidance = max(row["guidance"] for row in rows if row["model"] != "real")
    return "\n\n".join([
        "# From the original recipe to ours, one change at a time",
        *stand_in_notice(stand_ins),
        f"{images:,} images to a figure, guidance {guidance:g}, {seeds} seed{'s' if seeds > 1 else ''} of training: "
        "mean ± standard deviation over seeds. Captions and initial noise are the same for all. Distances are to real "
        "images of the captions drawn; lower is better.",
        *(part for metric in METRICS for part in _section(rows, metric, list(sentences))),
        "## Beside them",
        markdown_table(["", "network evaluations", *(name for _, name, _ in METRICS)], _peers(rows)),
        "## What each step changes",
        "\n".join(f"- `{step}`: {sentence}" for step, sentence in sentences.items()),
        *([f"`{headline_text(rows)}`"] if headline(rows) else []),
    ]) + "\n"  # fmt: skip


def _section(rows: Rows, metric: tuple[str, str, str], steps: Sequence[str]) -> list[str]:
    """Heading and table of a metric: one row a step of the ablation, one column a number of sampling steps."""
    key, name, form = metric
    counts = sampling_steps(rows)
    table = [
        [f"`{step}`", *(_cell(_values(rows, key, step=step, steps=count), form) for count in counts)] for step in steps
    ]
    headings = ["", *(f"{count} step{'s' if count > 1 else ''}" for count in counts)]
    return [f"## {name.capitalize()}", markdown_table(headings, table)]


def ablation_chart(
    rows: Rows, chain: Sequence[str], branches: Sequence[str], stand_ins: Sequence[str]
) -> Callable[[Path], None]:
    """Fréchet distance by step, one line a number of sampling steps; writes a PNG file to the path it is given."""
    names = [*chain, *branches]
    lines = [
        Line(*_points(rows, names, steps, count), colour, label if part == "chain" else None, part == "chain")
        for colour, count in enumerate(sampling_steps(rows))
        for label in [f"{count} step{'s' if count > 1 else ''}"]
        for part, steps in (("chain", chain), ("branches", branches))
    ]
    levels = [
        (sampling_title("teacher", row["sampler"], row["steps"]), row["value"])
        for row in rows
        if row["model"] == "teacher" and row["metric"] == FRECHET
    ]
    panel = Panel("step of the ablation", "Fréchet distance", lines, True, levels, names)
    title = "\n".join(["From the original recipe to ours", *stand_in_notice(stand_ins, "{}")])
    return partial(draw_chart, [panel], title)


def sampling_steps(rows: Rows) -> list[int]:
    """Numbers of steps that students drew in, rising."""
    return sorted({row["steps"] for row in rows if row["model"] == "student"})


def _values(rows: Rows, metric: str, **wanted: Any) -> list[float]:
    """One value a seed."""
    chosen = {"metric": metric, **wanted}
    return [row["value"] for row in rows if all(row[name] == value for name, value in chosen.items())]


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _cell(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    return form.format(mean(values)) + (f" ± {form.format(_spread(values))}" if len(values) > 1 else "")


def _points(
    rows: Rows, names: Sequence[str], steps: Sequence[str], count: int
) -> tuple[list[float], list[float], list[float]]:
    """x, y and spread of the given steps; x is a step's place among `names`."""
    found = {step: values for step in steps if (values := _values(rows, FRECHET, step=step, steps=count))}
    return (
        [float(names.index(step)) for step in found],
        [mean(values) for values in found.values()],
        [_spread(values) for values in found.values()],
    )


def _peers(rows: Rows) -> list[list[str]]:
    teachers = {(row["sampler"], row["steps"]): row["network_evaluations"] for row in rows if row["model"] == "teacher"}
    peers = [
        [sampling_title("teacher", solver, steps), str(evaluations),
         *(_cell(_values(rows, metric, model="teacher", sampler=solver, steps=steps), form)
           for metric, _, form in METRICS)]
        for (solver, steps), evaluations in teachers.items()
    ]  # fmt: skip
    return [*peers, ["real images of other captions", "", _cell(_values(rows, FRECHET, model="real"), "{:.2f}"), ""]]
