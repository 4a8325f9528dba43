"""Charts of runs and of guidance: what a colour, a mark and a stroke say is the same in every panel."""

from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.report.charts import COLOURS, MODEL_COLOURS
from lcm_distill.report.comparison import comparison_panels
from lcm_distill.report.guidance import guidance_panels, guidance_text


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


def panels_of(rows, preferred=(2.0,)):
    return comparison_panels(rows, preferred, FIGURE_STYLES)


def test_a_colour_is_a_model_and_a_mark_a_sampler():
    distances = [{**row, "metric": "teacher_distance"} for row in STUDENTS[:2]]
    first, second = panels_of([*TEACHER, *STUDENTS[:2], *distances])
    teacher, untrained, student = (MODEL_COLOURS[model] for model in ("teacher", "untrained", "student"))
    assert looks(first) == {
        "teacher, Euler": (teacher, 1, 0), "untrained student": (untrained, 2, 0), "a": (student, 2, 0)
    }  # fmt: skip
    assert looks(second).items() <= looks(first).items() and len(looks(second)) == 2
    assert (first.name, second.name) == ("frechet-distance", "distance-to-teacher")
    assert first.title == "Fréchet distance at guidance 2\n60 held-out captions, seed 0"


def test_students_beside_each_other_have_the_axes_for_themselves():
    runs = [row("student", "consistency", 1, 1.0, run=run) for run in "abcdef"]
    (panel,) = panels_of([*TEACHER, *STUDENTS[:1], *runs])
    assert [line.label for line in panel.lines] == [*"abcdef"]
    assert panel.horizontals == [("teacher, 18 Heun steps", 1.2)]
    assert panel.title.endswith("\nin the table alone: few-step teacher, untrained student")
    colours = [line.colour for line in panel.lines]
    assert colours[0] == MODEL_COLOURS["student"] and len({*colours}) == 6
    assert {colour % len(COLOURS) for colour in colours}.isdisjoint(
        {MODEL_COLOURS["teacher"], MODEL_COLOURS["untrained"]}
    )


def test_a_chart_shows_the_scale_that_most_runs_share():
    def scales(*preferred: float, **known: list[float]) -> tuple[str, set[str | None]]:
        rows = [row("student", "consistency", 1, 1, run=run, guidance=scale) for run in known for scale in known[run]]
        (panel,) = panels_of(rows, preferred)
        return panel.title.partition("\n")[0][-1], {line.label for line in panel.lines}

    assert scales(3, 3, 2, a=[1, 2], b=[2, 3], c=[2]) == ("2", {"a", "b", "c"})
    assert scales(3, 3, a=[1, 2, 3], b=[1, 2, 3]) == ("3", {"a", "b"})
    assert scales(2, 2, a=[2], b=[2], c=[3]) == ("2", {"a", "b", "c, guidance 3"})


def test_what_was_measured_with_other_sigmas_is_no_part_of_the_line():
    untrained = [
        row("untrained", "consistency", steps, 9 / steps, time="1", sigmas=[80.0, 2.0][:steps]) for steps in (1, 2)
    ]
    later = row("untrained", "consistency", 2, 4.0, time="2", sigmas=[80.0, 3.0])
    for rows in ([*untrained, later], [later, *untrained]):
        (panel,) = panels_of(rows)
        line, point = panel.lines
        assert (line.label, line.x, line.y) == ("untrained student, 2 steps with sigmas 80 3", [1, 2], [9.0, 4.0])
        assert (point.label, point.x, point.y) == ("untrained student, 2 steps with sigmas 80 2", [2], [4.5])
        assert line.joined and not point.joined and point.mark != line.mark
    teachers = [
        row("teacher", "heun", 18, value, dtype=dtype) for value, dtype in ((1.2, "float32"), (1.3, "bfloat16"))
    ]
    assert panels_of(teachers)[0].horizontals == [
        ("teacher, 18 Heun steps, float32", 1.2), ("teacher, 18 Heun steps, bfloat16", 1.3)
    ]  # fmt: skip


def test_a_solver_in_one_number_of_steps_is_a_horizontal_line():
    (panel,) = panels_of([*TEACHER, *STUDENTS[:2]])
    assert panel.horizontals == [("teacher, 18 Heun steps", 1.2)]
    (curve,) = [line for line in panel.lines if line.label == "teacher, Euler"]
    assert (curve.x, curve.y) == ([2, 4], [2.0, 1.0])


def test_models_under_one_name_have_their_checkpoints_in_the_legend():
    others = [row("student", "consistency", steps, 1.0, run="a", checkpoint_sha256="f" * 64) for steps in (1, 2)]
    (panel,) = panels_of([*STUDENTS, *others])
    assert set(looks(panel)) == {"a, checkpoint student0", "a, checkpoint ffffffff", "b"}


def test_distances_to_the_teacher_at_its_own_scales_are_one_figure():
    rows = [
        row(
            "student",
            "consistency",
            1,
            value,
            run=f"at {scale}",
            metric="teacher_distance",
            guidance=scale,
            reference=reference,
        )
        for scale, value, reference in ((2.0, 0.5, "teacher, 18 Heun steps:2"), (1.0, 0.4, "teacher, 18 Heun steps:1"))
    ]
    (panel,) = panels_of(rows)
    assert panel.y_label == "distance to teacher" and len(panel.lines) == 2


def test_sets_of_captions_have_charts_of_their_own_and_their_hash_only_where_they_need_it():
    def charts(*prompts: str) -> dict[str, str]:
        rows = [{**STUDENTS[1], "prompts": name, "seed": seed} for seed, name in enumerate(prompts)]
        return {panel.name: panel.title.partition("\n")[2] for panel in panels_of(rows)}

    assert charts("held-out:0123456789ab") == {"frechet-distance": "60 held-out captions, seed 0"}
    assert charts("held-out:0123456789ab", "my.csv:0123456789ab") == {
        "frechet-distance-1": "60 held-out captions, seed 0", "frechet-distance-2": "60 captions of my.csv, seed 1"
    }  # fmt: skip
    same = [{**STUDENTS[1], "prompts": f"held-out:{digit * 12}"} for digit in "ab"]
    assert [panel.title.partition("\n")[2] for panel in panels_of(same)] == [
        f"60 held-out captions, seed 0, hash {digit * 12}" for digit in "ab"
    ]


def test_runs_are_named_by_as_much_of_their_paths_as_tells_them_apart():
    def names(*runs: str) -> list[str | None]:
        (panel,) = panels_of([row("student", "consistency", 1, 1.0, run=run) for run in runs])
        return [line.label for line in panel.lines]

    assert names("/mnt/runs/a", "runs/b") == ["a", "b"]
    assert names("/mnt/one/a", "/mnt/two/a") == ["one/a", "two/a"]


def test_figures_of_latents_stand_in_tables_alone():
    latents = row("student", "consistency", 1, 0.9, metric="guidance_slope", protocol="latents")
    (panel,) = panels_of([STUDENTS[1], latents])
    assert panel.y_label == "Fréchet distance"


def test_lines_against_guidance_have_the_colour_of_their_model():
    scales = [{**row, "guidance": scale} for row in (*TEACHER, *STUDENTS[:2]) for scale in (1.0, 2.0)]
    once = [row("untrained", "consistency", 4, 5.0)]
    teacher, untrained, student = (MODEL_COLOURS[model] for model in ("teacher", "untrained", "student"))
    (panel,) = guidance_panels([*once, *scales], (1.0, 3.0), FIGURE_STYLES)
    assert looks(panel) == {
        "teacher, 18 Heun steps": (teacher, 0, 0), "teacher, 4 Euler steps": (teacher, 1, 1),
        "teacher, 2 Euler steps": (teacher, 2, 2), "untrained student, 1 step": (untrained, 0, 0),
        "student, 1 step": (student, 0, 0),
    }  # fmt: skip
    assert panel.name == "frechet-distance" and panel.band == (1.0, 3.0, "range of the student's training")
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
    assert (
        models == {*MODEL_COLOURS.values()} and models.isdisjoint(own) and len({*own}) == 3 and max(own) < len(COLOURS)
    )
    assert response.name == "response"


def test_other_sigmas_are_another_line_against_guidance_and_another_row_of_its_table():
    rows = [
        row("student", "consistency", 2, 9 + last / scale, guidance=scale, sigmas=[80.0, last])
        for last in (2.0, 3.0) for scale in (1.0, 2.0)
    ]  # fmt: skip
    (panel,) = guidance_panels(rows, (1.0, 3.0), FIGURE_STYLES)
    assert {line.label: line.y for line in panel.lines} == {
        "student, 2 steps, sigmas 80 2": [11, 10], "student, 2 steps, sigmas 80 3": [12, 10.5]
    }  # fmt: skip
    text = guidance_text(rows, (1.0, 3.0), (), FIGURE_STYLES)
    assert "| student, 2 steps, sigmas 80 2 | 11.00 | 10.00 |" in text and "sigmas 80 3 | 12.00 | 10.50 |" in text
