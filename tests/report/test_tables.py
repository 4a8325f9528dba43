"""Rows of `metrics.parquet` side by side."""

from io import StringIO

from rich.console import Console

from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.report.figure_columns import LATENTS, figure_columns
from lcm_distill.report.tables import figures_cells, markdown_table, metrics_table

SAMPLING = {"model": "student", "sampler": "consistency", "steps": 2, "guidance": 5.0, "seed": 0, "same_noise": False,
       "prompts": "c.csv:1", "images": 30_000, "sigmas": [80.0, 2.0], "checkpoint_sha256": "ab" * 32,
       "network_evaluations": 2, "seconds_per_image": 0.5}  # fmt: skip


def row(metric: str, value: float, protocol: str, reference: str | None = "coco.npz:1", **other):
    return {**SAMPLING, "metric": metric, "value": value, "protocol": protocol, "reference": reference, **other}


def as_dicts(rows):
    headings, cells = figures_cells(rows, FIGURE_STYLES)
    return [dict(zip(headings, line, strict=True)) for line in cells]


def test_protocols_of_the_same_images_share_a_line():
    rows = [row("clip_score", 0.3101, "clip-vit-b-32", None), row("kid", 0.001, "t2i-benchmark"),
            row("fid", 12.344, "t2i-benchmark"), row("fid", 13.0, "gigagan")]  # fmt: skip
    (line,) = as_dicts(rows)
    assert list(line)[4:8] == [
        "CLIP score (clip-vit-b-32)",
        "FID (t2i-benchmark)",
        "KID (t2i-benchmark)",
        "FID (gigagan)",
    ]
    assert list(line.values())[4:8] == ["0.3101", "12.34", "0.00100", "13.00"]


def test_the_same_metric_against_two_references_stands_in_two_columns():
    rows = [
        row("fid", 1.0, "gigagan"),
        row("fid", 2.0, "gigagan", "val2014:2"),
        row("kid", 3.0, "gigagan", "val2014:2"),
    ]
    (line,) = as_dicts(rows)
    assert line["FID (gigagan, coco.npz:1)"] == "1.00" and line["FID (gigagan, val2014:2)"] == "2.00"
    assert line["KID (gigagan)"] == "3.00000"


def test_a_column_appears_only_where_it_distinguishes_images_of_one_sampling():
    rows = [row("fid", 1.0, "gigagan", seed=seed, sigmas=[80.0, low]) for seed, low in ((0, 2.0), (1, 2.0))]
    assert [line["seed"] for line in as_dicts(rows)] == ["0", "1"]
    assert "sigmas" not in as_dicts(rows)[0] and "images" not in as_dicts(rows)[0]
    rows = [row("fid", 1.0, "gigagan", sigmas=[80.0, low]) for low in (2.0, 0.5)]
    assert [line["sigmas"] for line in as_dicts(rows)] == ["80 2", "80 0.5"]
    assert list(as_dicts(rows)[0])[-1] == "sigmas"  # after the figures


def test_sigmas_have_three_digits_and_a_solver_has_none_that_its_steps_say():
    students = [row("fid", 1.0, "gigagan", sigmas=[80.0, low]) for low in (2.0, 1.23456)]
    teacher = row("fid", 1.0, "gigagan", model="teacher", sampler="euler", sigmas=[80.0, 0.4699])
    assert [line["sigmas"] for line in as_dicts([teacher, *students])] == ["", "80 2", "80 1.23"]
    other = {**teacher, "sigmas": [40.0, 0.4699]}
    assert [line["sigmas"] for line in as_dicts([teacher, other])] == ["80 0.47", "40 0.47"]


def test_other_samplings_do_not_make_a_column():
    rows = [row("fid", 1.0, "gigagan"), row("fid", 2.0, "gigagan", steps=4, sigmas=[80.0, 4.0, 2.0, 1.0])]
    assert [line["steps"] for line in as_dicts(rows)] == ["2", "4"] and "sigmas" not in as_dicts(rows)[0]


def test_columns_are_in_the_order_of_the_protocols_figures():
    rows = [row(metric, 0.0, "gigagan") for metric in ("coverage", "recall", "fid", "precision")]
    assert [figure.metric for figure in figure_columns(rows, FIGURE_STYLES)] == [
        "fid",
        "precision",
        "recall",
        "coverage",
    ]


def test_stand_in_protocols_are_not_named():
    rows = [row("frechet_distance", 4.0, "shapes", "held-out pictures"), row("caption_accuracy", 0.9, "shapes", None)]
    (line,) = as_dicts(rows)
    assert line["Fréchet distance"] == "4.00" and line["caption accuracy"] == "90.0%"


def test_a_metric_without_a_protocol_is_shown_under_its_own_name():
    (line,) = as_dicts([row("own_metric", 1.0, "own", None)])
    assert line["own metric (own)"] == "1.000"


def test_markdown_reads_as_plain_text():
    assert markdown_table(["", "1 step"], [["`original`", "12.00"], ["`x`", "3.5"]]).splitlines() == [
        "|            | 1 step |",
        "| :--------- | -----: |",
        "| `original` |  12.00 |",
        "| `x`        |    3.5 |",
    ]


def test_a_warning_of_any_figure_stands_in_the_last_column():
    rows = [{**SAMPLING, "metric": "fid", "protocol": "t2i-benchmark", "reference": "r", "value": 9.0, "images": 2500,
             "sigmas": [80.0], "checkpoint_sha256": "a", "prompts": "p", "dtype": "float32", "network_evaluations": 1,
             "seconds_per_image": 0.1, "warning": "few images, 10,000 are usual"}]  # fmt: skip
    rows.append({**rows[0], "metric": "kid", "warning": None})
    for given in (rows, rows[::-1]):
        headings, (cells,) = figures_cells(given, FIGURE_STYLES)
        assert (headings[-1], cells[-1]) == ("warning", "few images, 10,000 are usual")
    assert "warning" not in figures_cells(rows[1:], FIGURE_STYLES)[0]
    repeating = "75 held-out captions repeat"
    rows = [{**rows[0], "warning": f"few images, 10,000 are usual; {repeating}"}, {**rows[1], "warning": repeating}]
    assert figures_cells(rows, FIGURE_STYLES)[1][0][-1] == f"few images, 10,000 are usual; {repeating}"


def test_a_warning_says_each_thing_once():
    """Of all figures of a line: against real images, against the teacher's, and of another number that is usual."""
    both, repeat = "few images and few real images (14), 1,000 are usual", "14 held-out captions repeat"
    for warnings, said in (
        ((f"{both}; {repeat}", None, f"few images, 1,000 are usual; {repeat}"), f"{both}; {repeat}"),
        (("few images, 5,000 are usual", "few images, 10,000 are usual"), "few images, 10,000 are usual"),
        (("few images, 10,000 are usual", both), "few images, 10,000 are usual; few real images (14), 1,000 are usual"),
    ):
        names = ("frechet_distance", "caption_accuracy", "teacher_distance")
        rows = [row(name, 1.0, "shapes", warning=warning) for name, warning in zip(names, warnings, strict=False)]
        headings, (cells,) = figures_cells(rows, FIGURE_STYLES)
        assert (headings[-1], cells[-1]) == ("warning", said)


def test_the_response_to_guidance_stands_in_the_line_of_the_images_that_it_is_about():
    rows = [row("fid", 1.0, "gigagan"), row("guidance_slope", 0.5, LATENTS, "teacher:1", images=192)]
    (line,) = as_dicts(rows)
    assert line["FID (gigagan)"] == "1.00" and line["guidance slope"] == "0.50" and "images" not in line
    assert len(as_dicts([*rows, row("guidance_slope", 0.5, LATENTS, "teacher:1", images=192, steps=4)])) == 2


def narrow(width: int | None) -> tuple[list[str], list[str]]:
    """Headings and lines below a table for a terminal."""
    few, many = "few images, 10,000 are usual", "few real images (40), 10,000 are usual"
    rows = [
        row("frechet_distance", 12.344, "shapes", warning=many),
        row("caption_accuracy", 0.5, "shapes", None),
        row("teacher_distance", 3.0, "shapes", "teacher, 18 Heun steps:1", warning=few),
        row("frechet_distance", 4.6, "shapes", model="real", sampler="none", steps=None, guidance=None),
    ]
    table = metrics_table(rows, "title", FIGURE_STYLES, width)
    Console(width=width or 1000, file=(written := StringIO())).print(table)
    shown = written.getvalue().splitlines()
    assert width != 80 or (
        max(map(len, shown)) <= width and any("consistency" in line and "12.34" in line for line in shown)
    )
    return [str(column.header) for column in table.columns], str(table.caption).splitlines()


def test_a_table_for_a_narrow_terminal_leaves_out_its_last_columns_and_says_so():
    every, (caption,) = narrow(None)
    assert every[-3:] == ["network evaluations", "seconds per image", "warning"] and caption.startswith("Distances are")
    kept, captions = narrow(80)
    assert kept == every[:-3] and kept[-1] == "distance to teacher"
    assert captions == [
        caption, "few real images (40) and few images, 10,000 are usual",
        "No room for network evaluations, seconds per image.",
    ]  # fmt: skip
    assert narrow(200) == (every, [caption])


def test_a_very_narrow_terminal_has_the_first_figure():
    assert narrow(20)[0][-2:] == ["guidance", "Fréchet distance"]
