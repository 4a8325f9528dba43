"""Sweeps over steps, guidance scales and models: one table, and figures against the guidance scale."""

import json
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

from lcm_distill.config import load_file
from lcm_distill.evaluation.features import FeatureSet
from lcm_distill.evaluation.guidance_response_measurement import ResponseComparison
from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.prompts import find_prompts
from lcm_distill.evaluation.requirements import find_extractors
from lcm_distill.evaluation.samplings import samplings
from lcm_distill.metrics.frechet import frechet_distance
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.figure_columns import LATENTS, of_images
from lcm_distill.stages.evaluate import evaluate
from tests.command_line import lcm
from tests.runs import borrow


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """The finished small run, with a folder of its own for images."""
    own = ("config.toml", "student.safetensors", "metrics.parquet", "evaluate")
    return borrow(finished_run, tmp_path, *own, linked=("images", "cache"))


SAMPLINGS = [
    ("teacher", "heun", 3),
    ("teacher", "euler", 2),
    ("student", "consistency", 1),
    ("student", "consistency", 2),
]


@pytest.mark.usefixtures("short_trajectories")
def test_every_sampling_at_every_scale(run):
    config = load_file(run.config, ["evaluate.guidance=[2, 1]"])
    reports = list(evaluate(config, run))
    generated = [report for report in reports if report.label == "generate"]
    assert generated[-1].done == 14 * 4 * 2 and generated[-1].resumed == 14 * 4  # guidance 2 is what the fixture has
    every_row = pq.read_table(f"{run.guidance}.parquet").to_pylist()
    rows = [row for row in of_images(every_row) if row["metric"] != "teacher_distance"]
    assert [(row["model"], row["sampler"], row["steps"], row["guidance"]) for row in rows[::2]] == [
        (*sampling, scale) for scale in (2.0, 1.0) for sampling in SAMPLINGS
    ]
    plain = {row["steps"]: row["network_evaluations"] for row in rows if row["guidance"] == 1}
    assert plain[3] == 5  # two Heun steps and an Euler step at the end, without a second pass for guidance
    metrics = pq.read_table(run.metrics).to_pylist()
    assert [row for row in metrics if row["model"] != "real"] == every_row
    text = run.guidance.with_suffix(".md").read_text()
    assert "trained on scales from 1 to 3" in text and "| teacher, 3 Heun steps" in text
    names = {path.name for path in run.root.glob("guidance*.png")}
    figures = ("frechet-distance", "caption-accuracy", "distance-to-teacher", "response")
    assert names == {f"guidance-{figure}.png" for figure in figures}


def test_the_response_of_the_student_to_the_scale_is_a_figure(run):
    """A student that has hardly been trained hardly has one."""
    list(evaluate(load_file(run.config, ["evaluate.guidance=[1, 3]", "evaluate.batch_size=14"]), run))
    rows = [row for row in pq.read_table(run.metrics).to_pylist() if row["protocol"] == LATENTS]
    names = [
        f"guidance_{name}" for name in ("slope", "size", "cosine", "slope_from_80", "slope_from_10", "slope_from_2")
    ]
    assert [(row["steps"], row["guidance"], row["metric"]) for row in rows] == [
        (steps, 3.0, name) for steps in (1, 2) for name in [*names, "seed_diversity"]
    ]
    assert all(abs(row["value"]) < 0.2 and row["images"] == 14 for row in rows if "slope" in row["metric"])
    text = run.guidance.with_suffix(".md").read_text()
    response = text.partition("## Response of the student")[2]
    assert "from the same 14 noisy samples" in response and "| student, 2 steps" in response


@pytest.mark.usefixtures("short_trajectories")
def test_diversity_over_seeds_is_that_of_the_noise_for_a_sampler_that_gives_it_back(run):
    config = load_file(run.config, ["evaluate.guidance=[1, 3]"])
    comparison = ResponseComparison(config, find_prompts(config, run))
    gives_back, ignores = cast(Any, lambda _, noise: noise(0)), cast(Any, lambda _, noise: 0 * noise(0))
    assert comparison.diversity(comparison.teacher, gives_back) == pytest.approx(1023**0.5, rel=0.02)
    assert comparison.diversity(comparison.teacher, ignores) == 0


def test_rows_say_where_their_figure_comes_from(run):
    config = load_file(run.config, ["evaluate.seed=7"])
    rows = [row for row in pq.read_table(run.metrics).to_pylist() if row["model"] == "student"]
    list(evaluate(load_file(run.config, ["evaluate.seed=7", "evaluate.models=['student']"]), run))
    seeded = [row for row in pq.read_table(run.metrics).to_pylist() if row["seed"] == 7 and row["model"] == "student"]
    rows = [row for row in rows if row["metric"] != "teacher_distance"]  # nothing of the teacher is generated
    assert len(seeded) == len(rows) == 4
    for row, before in zip(seeded, rows, strict=True):
        assert (row["protocol"], row["extractor"], row["reference"]) == ("shapes", "shapes", "held-out pictures")
        assert row["prompts"].startswith("held-out:") and row["prompts"] == before["prompts"]
        assert row["sigmas"] == config.evaluate.student_sigmas[row["steps"]] and row["same_noise"] is False
        assert len(row["extractor_sha256"]) == len(row["checkpoint_sha256"]) == 64 and row["commit"] and row["time"]
        assert row["config_fingerprint"] != before["config_fingerprint"] and before["seed"] == 0
    heun = next(row for row in pq.read_table(run.metrics).to_pylist() if row["sampler"] == "heun")
    assert heun["sigmas"] == pytest.approx([80.0, 2.515, 0.002], rel=1e-3)


def test_the_distance_to_the_teacher_is_that_of_the_two_sets_of_images(run):
    """Of the student at each number of steps, to the first of the teacher's samplings at its scale."""
    config = load_file(run.config)
    list(evaluate(config, run))
    measured = [row for row in pq.read_table(run.metrics).to_pylist() if row["metric"] == "teacher_distance"]
    assert [(row["model"], row["steps"]) for row in measured] == [("student", 1), ("student", 2)]
    (extractor,), prompts = find_extractors(config.evaluate), find_prompts(config, run)
    sets = [ImageSet(config, run, sampling, prompts) for sampling in samplings(config, run.student)]
    moments = [FeatureSet(image_set, extractor).statistics().moments for image_set in sets]
    for row, own in zip(measured, moments[2:], strict=True):
        assert row["value"] == pytest.approx(frechet_distance(own, moments[0]), rel=1e-6)
        assert row["reference"] == f"teacher, 3 Heun steps:{sets[0].fingerprint[:12]}"
        assert row["warning"] == "few images, 1,000 are usual"


@pytest.mark.usefixtures("short_trajectories")
def test_options_vary_steps_guidance_and_models(run):
    """The student alone; figures of the teacher that were measured before stay beside its own."""
    result = lcm("evaluate", "--run", run.root, "--steps", "1,4", "--guidance", "1,2", "--models", "student", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    generated = {(row["model"], row["steps"], row["guidance"]) for row in rows if row["model"] != "real"}
    assert generated == {
        *(("teacher", steps, 2.0) for steps in (3, 2)), ("student", 2, 2.0),
        *(("student", steps, scale) for steps in (1, 4) for scale in (1.0, 2.0)),
    }  # fmt: skip
    text = run.guidance.with_suffix(".md").read_text()
    (teacher,) = [line for line in text.split("## Caption")[0].splitlines() if "teacher, 3 Heun" in line]
    assert teacher.split("|")[2].strip() == ""  # not measured at guidance 1


def test_the_teacher_takes_the_steps_with_every_solver(run):
    options = ["--steps", "1,2", "--teacher-steps", "1,2", "--dry-run", "--json"]
    plan = json.loads(lcm("evaluate", "--run", run.root, *options).stdout)["evaluate"]
    assert plan["samplings"] == [
        "teacher, 1 Heun step, guidance 2", "teacher, 2 Heun steps, guidance 2", "teacher, 1 Euler step, guidance 2",
        "teacher, 2 Euler steps, guidance 2", "student, 1 step, guidance 2", "student, 2 steps, guidance 2",
    ]  # fmt: skip
    assert plan["network_evaluations"] == 14 * (2 + 6 + 2 + 4 + 1 + 2) and plan["missing"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "1,x"], "--steps 1,x: give numbers separated by commas"),
        (["--steps", "1", "--guidance", "0.5"], "lcm: --guidance 0.5: evaluate.guidance.0 = 0.5"),
        (["--guidance", "2,2"], "lcm: --guidance 2,2: evaluate: guidance = [2.0, 2.0] names one twice"),
        (["--models", "pupil"], "lcm: --models pupil: evaluate.models.0 = 'pupil'"),
        (["--guidance", "2", "--steps", "0"], "lcm: --steps 0: evaluate.student_steps.0 = 0"),
        (["--teacher-steps", "0"], "lcm: --teacher-steps 0: evaluate.teacher.0.1 = 0"),
        (["--models", "teacher", "--steps", "4"], "--steps 4 are steps of the student, which is not among the models"),
        (["--models", "student", "--teacher-steps", "4"], "--teacher-steps 4 are steps of the teacher, which is not"),
        (["--teacher-steps", "x"], "--teacher-steps x: give numbers separated by commas"),
    ],
)
def test_wrong_sweeps_are_one_line(run, options, message):
    result = lcm("evaluate", "--run", run.root, *options)
    assert result.exit_code == 2 and message in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("command", ["evaluate", "schedule", "export"])
def test_a_teacher_that_is_no_file_is_refused_by_the_name_of_its_option(run, tmp_path, command):
    """Not by that of the key that it stands for: `model.teacher` is what it was."""
    for path, problem in ((tmp_path / "gone.pt", "missing"), (tmp_path, "a folder")):
        result = lcm(command, "--run", run.root, "--teacher", path)
        last = result.stderr.strip().splitlines()[-1]
        assert result.exit_code == 2, result.output
        assert last == f"lcm: --teacher {path} is {problem}: give a teacher's checkpoint"


def test_a_scale_outside_the_trained_range_warns(run):
    config = load_file(run.config, ["evaluate.guidance=4", "evaluate.teacher=[]"])
    with pytest.warns(UserWarning, match="guidance 4 lies outside 1 to 3, which this student was trained on"):
        list(evaluate(config, run))
    assert not run.guidance.with_suffix(".md").exists()
