"""The last line of an ablation, from rows with known figures."""

from typing import Any

import pytest

from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.report.ablation import ablation_panels, headline, headline_text


def row(model: str, steps: int, metric: str, value: float, guidance: float = 2.0, **others: Any) -> dict[str, Any]:
    """A row of `ablation.parquet`."""
    sampler = "heun" if model == "teacher" else "consistency"
    shared = {"step": None, "seed": None, "sampler": sampler, "reference": "real", "protocol": "shapes"}
    given = {"model": model, "steps": steps, "metric": metric, "value": value, "guidance": guidance}
    return {**shared, **given, **others}


def student(steps: int, metric: str, values: tuple[float, float], step: str = "default", **others: Any) -> list[Any]:
    """Rows of the students of two seeds."""
    return [row("student", steps, metric, value, step=step, seed=seed, **others) for seed, value in enumerate(values)]


ROWS = [
    row("teacher", 18, "frechet_distance", 2.0), row("teacher", 18, "caption_accuracy", 0.92),
    row("teacher", 4, "frechet_distance", 9.0), row("teacher", 4, "caption_accuracy", 0.5),
    row("teacher", 18, "frechet_distance", 7.0, 1.0), row("teacher", 18, "caption_accuracy", 0.80, 1.0),
    row("teacher", 18, "frechet_distance", 6.0, 3.0), row("teacher", 18, "caption_accuracy", 0.95, 3.0),
    *student(1, "frechet_distance", (8.0, 10.0), "original"),
    *student(1, "frechet_distance", (2.5, 3.5)), *student(2, "frechet_distance", (2.2, 2.2)),
    *student(4, "frechet_distance", (1.9, 2.0)), *student(4, "caption_accuracy", (0.89, 0.90)),
    *student(4, "frechet_distance", (30.0, 40.0), guidance=1.0),
    *student(4, "caption_accuracy", (0.84, 0.86), guidance=1.0),
    *student(4, "frechet_distance", (50.0, 60.0), guidance=3.0),
    *student(4, "caption_accuracy", (0.90, 0.92), guidance=3.0),
    *student(4, "guidance_slope", (0.2, 0.3), guidance=3.0, protocol="latents", reference="teacher:0"),
]  # fmt: skip


def test_every_figure_of_the_headline():
    assert headline(ROWS) == pytest.approx({
        "original_over_ours_1step": 9 / 3, "ours_over_teacher_4step": 1.95 / 2, "ours_over_teacher_2step": 2.2 / 2,
        "ours_over_teacher_1step": 3 / 2, "caption_gap_points": 92 - 89.5, "caption_rise": 6 / 15,
        "guidance_slope": 0.25,
    })  # fmt: skip
    assert headline_text(ROWS).endswith("caption_gap_points=2.5 caption_rise=0.4 guidance_slope=0.25")


def test_no_rise_of_one_guidance_scale():
    assert "caption_rise" not in headline([each for each in ROWS if each["guidance"] == 2])


def test_charts_are_at_the_first_guidance_scale():
    (panel,) = ablation_panels(ROWS, ["original", "default"], [], FIGURE_STYLES)
    assert max(y for line in panel.lines for y in line.y) == 9.0
    assert [height for _, height in panel.horizontals] == [2.0, 9.0]
