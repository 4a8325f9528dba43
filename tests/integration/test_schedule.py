"""The search for a student's sigmas: what it stores, where, and that it resumes."""

import json
from pathlib import Path

import pytest
import torch

from lcm_distill.api import LatentConsistencyModel, open_model
from lcm_distill.config import load_file, parse
from lcm_distill.diffusion.few_step_samplers import Deterministic
from lcm_distill.evaluation.sample_distance import StudentSamples
from lcm_distill.models import read_tensors
from lcm_distill.models.checkpoint import checkpoint_sha256, read_description, redescribe
from lcm_distill.models.student_description import StudentDescription, read_student
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.distill import distill
from lcm_distill.stages.evaluate import evaluate
from lcm_distill.stages.export import export
from lcm_distill.stages.queries import inspect
from lcm_distill.stages.schedule import schedule
from tests.command_line import lcm, settings
from tests.runs import borrow

SEARCH = ["schedule.steps=[1, 2, 3]", "schedule.samples=12"]


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """The finished small run, with a student of its own."""
    return borrow(finished_run, tmp_path, "config.toml", "student.safetensors", linked=("images", "cache", "distill"))


def sigmas_of(run: RunFolder) -> dict[int, tuple[float, ...]]:
    """The sigmas recorded in the run's student."""
    student = read_student(run.student)
    assert student is not None
    return student.sigmas


def test_sigmas_are_stored_in_the_student_alone_and_used(run):
    before, configured = read_tensors(run.student), run.config.read_text()
    identity = checkpoint_sha256(run.student)
    result = lcm("schedule", "--run", run.root, *settings(SEARCH), "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["steps"] for row in rows] == [1, 2, 3] and rows[0] == {
        "steps": 1, "sigmas": [80.0], "distance": rows[0]["distance"], "trials": 1,
    }  # fmt: skip
    found = {row["steps"]: row["sigmas"] for row in rows}
    published = load_file(run.config).evaluate.student_sigmas
    assert parse(configured, "before").evaluate == load_file(run.config).evaluate
    recorded = {int(steps): sigmas for steps, sigmas in read_description(run.student)["sigmas"].items()}
    assert recorded == {**published, **found} and 3 not in published
    model = open_model(run.root)
    assert isinstance(model, LatentConsistencyModel) and list(model.sampler(3).sigmas) == found[3]
    after = read_tensors(run.student)
    assert checkpoint_sha256(run.student) == identity
    assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)


def test_given_sigmas_are_stored_without_a_search(run):
    """Sigmas of the configuration are those of a student yet to be trained: a change without effect is refused."""
    given = ["--set", "evaluate.student_sigmas.2=[80.0, 7.0]"]
    before, configured = run.student.read_bytes(), run.config.read_text()
    for command in ("evaluate", "run", "schedule"):
        refused = lcm(command, "--run", run.root, *given)
        assert refused.exit_code == 2 and "student_sigmas.2 = [80.0, 7.0] would change nothing" in refused.output
        assert "--set 'schedule.sigmas.2=[80.0, 7.0]'" in " ".join(refused.output.split())
    assert run.student.read_bytes() == before and run.config.read_text() == configured
    same = list(load_file(run.config).evaluate.student_sigmas[2])
    assert lcm("evaluate", "--run", run.root, "--set", f"evaluate.student_sigmas.2={same}", "--dry-run").exit_code == 0
    small = ["--set", "schedule.steps=[2]", "--set", "schedule.samples=12"]
    stored = lcm("schedule", "--run", run.root, "--set", "schedule.sigmas.2=[80.0, 7.0]", *small, "--json")
    assert stored.exit_code == 0, stored.output
    distance = StudentSamples(load_file(run.config), run).distance((80.0, 7.0))
    assert json.loads(stored.stdout) == [
        {"steps": 2, "sigmas": [80.0, 7.0], "distance": pytest.approx(distance, rel=1e-6), "trials": 1}
    ]
    assert sigmas_of(run)[2] == (80.0, 7.0) and sigmas_of(run)[1] == (80.0,)
    other = lcm("schedule", "--run", run.root, "--set", "schedule.sigmas.2=[80.0, 5.0]", "--json")
    assert json.loads(other.stdout)[0]["sigmas"] == [80.0, 5.0] and sigmas_of(run)[2] == (80.0, 5.0)
    outside = lcm("schedule", "--run", run.root, "--set", "schedule.sigmas.2=[90.0, 7.0]")
    assert outside.exit_code == 2 and "set schedule.sigmas={} for a search" in outside.output
    assert "schedule.sigmas.2 = [90.0, 7.0] must fall from diffusion.sigma_max" in outside.output


def test_distance_found_is_that_of_new_samples(run):
    config = load_file(run.config, SEARCH)
    list(schedule(config, run))
    found = sigmas_of(run)
    rows = {row["steps"]: row for row in inspect(config, run, "FROM schedule ORDER BY distance DESC")}
    samples = StudentSamples(config, run)
    for steps in (2, 3):
        assert tuple(rows[steps]["sigmas"]) == found[steps]
        assert samples.distance(found[steps]) == pytest.approx(rows[steps]["distance"], rel=1e-6)


def test_interrupted_search_resumes(run):
    before = run.student.read_bytes()
    config = load_file(run.config, SEARCH)
    for report in schedule(config, run):
        if report.done == 2:
            break
    assert run.student.read_bytes() == before
    reports = list(schedule(config, run))
    assert (reports[0].done, reports[0].resumed, reports[-1].done) == (2, 2, 3)
    assert all(report.counts.get("steps", 3) == 3 for report in reports)
    assert 3 in sigmas_of(run)


def test_search_in_bfloat16_finds_nearly_the_same_distance_and_is_a_search_of_its_own(run):
    exact, rounded = (load_file(run.config, [*SEARCH, f"evaluate.dtype={dtype}"]) for dtype in ("float32", "bfloat16"))
    samples = StudentSamples(rounded, run)
    for network in (samples.student, samples.teacher):
        assert network.get_parameter("blocks.0.attn.qkv.weight").dtype == torch.bfloat16
    sigmas = (80.0, 2.0)
    assert samples.distance(sigmas) == pytest.approx(StudentSamples(exact, run).distance(sigmas), rel=0.05)
    list(schedule(exact, run))
    assert [report.resumed for config in (exact, rounded) for report in list(schedule(config, run))[:1]] == [3, 0]


def test_without_a_student_the_remedy_is_named(run):
    run.student.unlink()
    result = lcm("schedule", "--run", run.root)
    assert result.exit_code == 2 and "run `lcm distill --run" in result.output


def test_a_search_ignores_trials_of_other_searches(run):
    """A search of 2 steps with fewer samples: what an earlier one found for 2 and 3 steps, under way better, is out."""
    list(schedule(load_file(run.config, SEARCH), run))
    three = sigmas_of(run)[3]
    student = read_student(run.student)
    assert student is not None
    own = student.model_copy(update={"sigmas": {**student.sigmas, 3: (80.0, 9.0, 7.0)}})
    run.student.write_bytes(redescribe(run.student, own.to_json()))
    list(schedule(load_file(run.config, ["schedule.steps=[2]", "schedule.samples=6"]), run))
    assert sigmas_of(run)[3] == (80.0, 9.0, 7.0) != three
    rows = inspect(load_file(run.config), run, "FROM schedule WHERE steps = 2 ORDER BY distance")
    assert {row["samples"] for row in rows} == {6} and sigmas_of(run)[2] == tuple(rows[0]["sigmas"])


def test_found_sigmas_outlive_evaluation_distillation_and_export(run):
    """Evaluation takes them whatever the configuration has; steps without any take the configured ones, then EDM's."""
    config = load_file(run.config, ["evaluate.models=['student']", "evaluate.student_steps=[1, 2, 3]"])
    described = StudentDescription.of(config).model_copy(update={"sigmas": {1: (80.0,)}})
    run.student.write_bytes(redescribe(run.student, described.to_json()))
    list(evaluate(config, run))
    images = {path.name for path in run.evaluate.glob("student-*")}
    found = described.model_copy(update={"sigmas": {1: (80.0,), 2: (80.0, 7.0)}})
    run.student.write_bytes(redescribe(run.student, found.to_json()))
    generated = [report for report in evaluate(config, run) if report.label != "measure"][-1]
    assert (generated.resumed, generated.done) == (2 * 14, 3 * 14)  # those of 2 steps alone are generated again
    assert {path.name for path in run.evaluate.glob("student-*")} > images
    rows = inspect(config, run, "FROM metrics WHERE model = 'student' AND metric = 'frechet_distance'")
    assert len({row["checkpoint_sha256"] for row in rows}) == 1
    measured = {(row["steps"], tuple(row["sigmas"])) for row in rows if row["steps"] != 3}
    assert measured == {(1, (80.0,)), (2, (80.0, 3.0)), (2, (80.0, 7.0))}
    (edm,) = [row["sigmas"] for row in rows if row["steps"] == 3]
    assert edm == pytest.approx([80.0, 9.723, 0.47], rel=1e-3)
    list(distill(config, run))
    assert sigmas_of(run) == found.sigmas
    exported = read_student(Path(export(config, run, "safetensors")["file"]))
    assert exported is not None and exported.sigmas == found.sigmas and exported.encoders == found.encoders


def test_students_without_fresh_noise_are_searched_as_they_sample(run):
    config = load_file(run.config, SEARCH)
    fresh = StudentSamples(config, run)
    run.student.write_bytes(redescribe(run.student, {**read_description(run.student), "fresh_noise": False}))
    kept = StudentSamples(config, run)
    assert kept.distance((80.0,)) == pytest.approx(fresh.distance((80.0,)), rel=1e-5)
    assert kept.distance((80.0, 2.0)) != pytest.approx(fresh.distance((80.0, 2.0)), rel=1e-2)
    assert open_model(run.root).sampler(2) == Deterministic((80.0, 3.0))
