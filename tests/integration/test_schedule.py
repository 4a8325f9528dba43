"""The search for a student's noise levels: what it stores, where, and that it goes on where it stopped."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from lcm_distill.api import LatentConsistencyModel, open_model
from lcm_distill.cli import app
from lcm_distill.config import load_file
from lcm_distill.models import read_tensors
from lcm_distill.models.checkpoint import read_description
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.schedule import Drawings, schedule
from lcm_distill.stages.status import inspect

SEARCH = ["schedule.steps=[1, 2, 3]", "schedule.samples=12"]


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """The finished small run, with a student of its own."""
    for name in ("images", "cache", "distill"):
        (tmp_path / name).symlink_to(finished_run.root / name)
    for path in (finished_run.config, finished_run.student):
        shutil.copy(path, tmp_path)
    return RunFolder(tmp_path)


def test_levels_are_stored_with_the_student_and_used(run):
    before = read_tensors(run.student)
    options = [option for assignment in SEARCH for option in ("--set", assignment)]
    result = CliRunner().invoke(app, ["schedule", "--run", str(run.root), *options, "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["steps"] for row in rows] == [1, 2, 3] and rows[0] == {
        "steps": 1, "sigmas": [80.0], "distance": rows[0]["distance"], "trials": 1,
    }  # fmt: skip
    found = {row["steps"]: row["sigmas"] for row in rows}
    stored = load_file(run.config)
    assert stored.evaluate.student_sigmas == {**found, 4: [80.0, 8.0, 2.0, 0.5], 5: [80.0, 8.0, 3.0, 1.2, 0.5]}
    assert read_description(run.student)["sigmas"]["3"] == found[3]
    model = open_model(run.root)
    assert isinstance(model, LatentConsistencyModel) and model.sigmas_for(3).tolist() == found[3]
    after = read_tensors(run.student)
    assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)


def test_distance_found_is_that_of_drawing_afresh(run):
    config = load_file(run.config, SEARCH)
    list(schedule(config, run))
    found = load_file(run.config).evaluate.student_sigmas
    rows = {row["steps"]: row for row in inspect(config, run, "FROM schedule ORDER BY distance DESC")}
    image_sets = Drawings(config, run)
    for steps in (2, 3):
        assert rows[steps]["sigmas"] == found[steps]
        assert image_sets.distance(tuple(found[steps])) == pytest.approx(rows[steps]["distance"], rel=1e-6)


def test_interrupted_search_goes_on(run):
    config = load_file(run.config, SEARCH)
    for report in schedule(config, run):
        if report.done == 2:
            break
    assert load_file(run.config) == load_file(run.config, []) and 3 not in load_file(run.config).evaluate.student_sigmas
    reports = list(schedule(config, run))
    assert (reports[0].done, reports[0].resumed, reports[-1].done) == (2, 2, 3)
    assert all(report.counts.get("steps", 3) == 3 for report in reports)
    assert 3 in load_file(run.config).evaluate.student_sigmas


def test_search_in_bfloat16_finds_nearly_the_same_distance_and_is_a_search_of_its_own(run):
    exact, rounded = (load_file(run.config, [*SEARCH, f"evaluate.dtype={dtype}"]) for dtype in ("float32", "bfloat16"))
    image_sets = Drawings(rounded, run)
    for network in (image_sets.student, image_sets.teacher):
        assert network.get_parameter("blocks.0.attn.qkv.weight").dtype == torch.bfloat16
    levels = (80.0, 2.0)
    assert image_sets.distance(levels) == pytest.approx(Drawings(exact, run).distance(levels), rel=0.05)
    list(schedule(exact, run))
    assert [report.resumed for config in (exact, rounded) for report in list(schedule(config, run))[:1]] == [3, 0]


def test_without_a_student_it_says_what_to_do(tmp_path):
    result = CliRunner().invoke(app, ["schedule", "--preset", "shapes", "--run", str(tmp_path / "new")])
    assert result.exit_code == 2 and "run `lcm distill` into" in result.output
