"""Charts of runs and of guidance: what a colour, a mark and a stroke say is the same in every panel."""

from PIL import Image

from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.report.charts import COLOURS, draw_chart
from lcm_distill.report.comparison import comparison_panels
from lcm_distill.report.guidance import guidance_panels


def row(model: str, sampler: str, steps: int, value: float, **other):
    return {
        "model": model, "sampler": sampler, "steps": steps, "network_evaluations": steps, "value": value, "run": None,
        "guidance": 2.0, "metric": "frechet_distance", "protocol": "shapes", "reference": "images:1", "seed": 0,
        "prompts": "held-out:1", "images": 60, "same_noise": False, "checkpoint_sha256": f"{model:0<64}", **other,
    }  # fmt: skip


TEACHER = [row("teacher", "heun", 18, 1.2), *(row("teacher", "euler", steps, 4 / steps) for steps in (4, 2))]
STUDENTS = [row("untrained", "consistency", 1, 2.9), row("student", "consistency", 1, 1.5, run="a"),
            row("student", "consistency", 1, 1.4, run="b", checkpoint_sha256="b" * 64)]  # fmt: skip


def looks(panel):
    return {line.label: (line.colour, line.mark, line.stroke) for line in panel.lines}


def test_a_colour_is_a_model_a_mark_a_sampler_and_a_stroke_a_scale():
    scaled = [{**row, "guidance": 1.0} for row in STUDENTS[1:2]]
    distances = [{**row, "metric": "teacher_distance"} for row in STUDENTS]
    first, second = comparison_panels([*TEACHER, *STUDENTS, *scaled, *distances], FIGURE_STYLES)
    assert looks(first) == {
        "teacher, Euler, guidance 2": (0, 1, 0),
        "untrained student, guidance 2": (1, 2, 0),
        "a, guidance 2": (2, 2, 0),
        "b, guidance 2": (3, 2, 0),
        "a, guidance 1": (2, 2, 1),
    }
    assert looks(second).items() <= looks(first).items() and len(looks(second)) == 3


def test_a_solver_in_one_number_of_steps_is_a_horizontal_line():
    (panel,) = comparison_panels([*TEACHER, *STUDENTS], FIGURE_STYLES)
    assert panel.horizontals == [("teacher, 18 Heun steps, guidance 2", 1.2)]
    (curve,) = [line for line in panel.lines if line.label == "teacher, Euler, guidance 2"]
    assert (curve.x, curve.y) == ([2, 4], [2.0, 1.0])


def test_models_under_one_name_have_their_checkpoints_in_the_legend():
    others = [row("student", "consistency", steps, 1.0, run="a", checkpoint_sha256="f" * 64) for steps in (1, 2)]
    (panel,) = comparison_panels([*STUDENTS, *others], FIGURE_STYLES)
    assert set(looks(panel)) == {
        "untrained student, guidance 2", "a, checkpoint student0, guidance 2", "a, checkpoint ffffffff, guidance 2",
        "b, guidance 2",
    }  # fmt: skip


def test_distances_to_the_teacher_at_its_own_scales_are_one_figure():
    rows = [
        row("student", "consistency", 1, value, metric="teacher_distance", guidance=scale, reference=reference)
        for scale, value, reference in ((2.0, 0.5, "teacher, 18 Heun steps:2"), (1.0, 0.4, "teacher, 18 Heun steps:1"))
    ]
    (panel,) = comparison_panels(rows, FIGURE_STYLES)
    assert panel.y_label == "distance to teacher" and len(panel.lines) == 2


def test_sets_of_captions_have_their_hash_only_where_they_need_it():
    def labels(*prompts: str) -> list[str]:
        rows = [{**STUDENTS[1], "prompts": name, "seed": seed} for seed, name in enumerate(prompts)]
        return [panel.y_label.partition("\n")[2] for panel in comparison_panels(rows, FIGURE_STYLES)]

    assert labels("held-out:0123456789ab") == [""]
    assert labels("held-out:0123456789ab", "my.csv:0123456789ab") == [
        "60 held-out captions, seed 0", "60 captions of my.csv, seed 1"
    ]  # fmt: skip
    same = [{**STUDENTS[1], "prompts": f"held-out:{digit * 12}"} for digit in "ab"]
    assert [panel.y_label for panel in comparison_panels(same, FIGURE_STYLES)] == [
        f"Fréchet distance\n60 held-out captions, seed 0, hash {digit * 12}" for digit in "ab"
    ]


def test_runs_are_named_by_as_much_of_their_paths_as_tells_them_apart():
    def names(*runs: str) -> list[str | None]:
        (panel,) = comparison_panels([row("student", "consistency", 1, 1.0, run=run) for run in runs], FIGURE_STYLES)
        return [line.label for line in panel.lines]

    assert names("/mnt/runs/a", "runs/b") == ["a, guidance 2", "b, guidance 2"]
    assert names("/mnt/one/a", "/mnt/two/a") == ["one/a, guidance 2", "two/a, guidance 2"]


def test_figures_of_latents_stand_in_tables_alone():
    latents = row("student", "consistency", 1, 0.9, metric="guidance_slope", protocol="latents")
    (panel,) = comparison_panels([STUDENTS[1], latents], FIGURE_STYLES)
    assert panel.y_label == "Fréchet distance"


def test_many_panels_stand_in_rows(tmp_path):
    panels = comparison_panels(STUDENTS, FIGURE_STYLES)
    sizes: list[tuple[int, int]] = []
    for count in (1, 3, 5):
        draw_chart(panels * count, "title", tmp_path / "chart.png")
        with Image.open(tmp_path / "chart.png") as chart:
            sizes.append(chart.size)
    assert sizes == [(832, 572), (1664, 1144), (1664, 1716)]


def test_lines_against_guidance_have_the_colour_of_their_model():
    scales = [{**row, "guidance": scale} for row in (*TEACHER, *STUDENTS[:2]) for scale in (1.0, 2.0)]
    once = [row("untrained", "consistency", 4, 5.0)]
    (panel,) = guidance_panels([*once, *scales], (1.0, 3.0), FIGURE_STYLES)
    assert looks(panel) == {
        "teacher, 18 Heun steps": (0, 0, 0), "teacher, 4 Euler steps": (0, 1, 1), "teacher, 2 Euler steps": (0, 1, 2),
        "untrained student, 1 step": (1, 2, 3), "student, 1 step": (2, 2, 3),
    }  # fmt: skip
    (panel,) = guidance_panels(once, (1.0, 3.0), FIGURE_STYLES)
    assert list(looks(panel)) == ["untrained student, 4 steps"]


def test_the_response_to_guidance_has_colours_of_its_own():
    scales = [{**each, "guidance": scale} for each in (*TEACHER, *STUDENTS[:2]) for scale in (1.0, 2.0)]
    responses = [
        row("student", "consistency", steps, 0.5, metric=f"guidance_{name}", protocol="latents")
        for name in ("slope", "size", "cosine")
        for steps in (1, 2)
    ]
    *panels, response = guidance_panels([*scales, *responses], (1.0, 3.0), FIGURE_STYLES)
    models = {line.colour for panel in panels for line in panel.lines}
    own = [line.colour for line in response.lines]
    assert models == {0, 1, 2} and own == [3, 4, 5] and max(own) < len(COLOURS)
