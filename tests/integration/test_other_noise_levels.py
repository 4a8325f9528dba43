"""A student of other noise levels than its run's: every command keeps to those that its file records."""

import json
import warnings

import pyarrow.parquet as pq
import pytest

from lcm_distill import assets
from lcm_distill.api import LatentConsistencyModel
from lcm_distill.config import load_file, load_preset
from lcm_distill.evaluation.image_sets import ImageSet
from lcm_distill.evaluation.prompts import find_prompts
from lcm_distill.evaluation.sample_distance import StudentSamples
from lcm_distill.evaluation.samplings import student_samplings
from lcm_distill.models.checkpoint import read_description, redescribe
from lcm_distill.models.student_description import StudentDescription, read_student
from tests.command_line import lcm


@pytest.fixture
def other_range(tmp_path):
    """A student whose file says that it was trained on sigmas from 0.01 to 40."""
    return _redescribed(tmp_path / "s40.safetensors", {"sigma_max": 40.0, "sigma_min": 0.01})


def _redescribed(path, diffusion, **changes):
    """The shipped student with other noise levels in its description, and no sigmas."""
    config = load_preset("shapes", [f"diffusion.{key}={value}" for key, value in diffusion.items()])
    description = StudentDescription.of(config).to_json() | {"sigmas": {}, **changes}
    path.write_bytes(redescribe(assets.STUDENT, description))
    return path


def _with(run, student):
    run.student = student
    return run


def test_the_search_and_its_sigmas_keep_to_the_range_that_the_file_records(run, other_range):
    """Its samples begin at its own sigma_max and end at its own sigma_min; sampling takes the sigmas without a word."""
    settings = ["--set", "schedule.steps=[1,2]", "--set", "schedule.samples=16"]
    result = lcm("schedule", "--run", run.root, "--student", other_range, *settings, "--json")
    assert result.exit_code == 0, result.output
    found = {row["steps"]: row["sigmas"] for row in json.loads(result.stdout)}
    assert found[1] == [40.0] and found[2][0] == 40.0 and found[2][1] >= 0.01
    scheduled = read_student(run.root / "s40-scheduled.safetensors")
    assert scheduled is not None and scheduled.diffusion.sigma_max == 40
    assert {steps: list(sigmas) for steps, sigmas in scheduled.sigmas.items()} == found
    samples = StudentSamples(load_file(run.config, ["schedule.samples=16"]), _with(run, other_range))
    assert samples.diffusion == scheduled.diffusion
    (again,) = [row["distance"] for row in json.loads(result.stdout) if row["steps"] == 2]
    assert samples.distance(tuple(found[2])) == pytest.approx(again, rel=1e-6)


def test_a_search_of_the_same_weights_in_another_range_is_another_search(run, other_range, tmp_path):
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(assets.STUDENT.read_bytes())
    for path, highest in ((plain, 80.0), (other_range, 40.0)):
        settings = ["--set", "schedule.steps=[1]", "--set", "schedule.samples=16"]
        assert lcm("schedule", "--run", run.root, "--student", path, *settings).exit_code == 0
        assert read_description(run.root / f"{path.stem}-scheduled.safetensors")["sigmas"]["1"] == [highest]


def test_images_of_the_same_weights_in_another_range_are_others(run, other_range, monkeypatch):
    """What the sigmas do not tell apart, the file's sigma_min does; the response starts within the student's range."""
    config = load_file(run.config, ["evaluate.student_sigmas={2=[30.0,2.0]}", "evaluate.student_steps=[2]"])
    prompts = find_prompts(config, run)
    places = []
    for path, lowest in ((other_range, 0.01), (other_range.with_stem("s41"), 0.02)):
        _redescribed(path, {"sigma_max": 40.0, "sigma_min": lowest})
        (sampling,) = student_samplings(config, path)
        assert sampling.sigmas == (30.0, 2.0)
        places.append(ImageSet(config, _with(run, path), sampling, prompts).folder)
    assert places[0] != places[1]
    for name in ("SOLVER_STEPS", "SAMPLES"):
        monkeypatch.setattr(f"lcm_distill.evaluation.guidance_response_measurement.{name}", 2)
    options = ["--models", "student", "--guidance", "1,2", "--steps", 1, "--set", "evaluate.student_sigmas={}"]
    options += ["--set", "evaluate.images=3"]
    result = lcm("evaluate", "--run", run.root, "--student", other_range, *options)
    assert result.exit_code == 0, result.output
    metrics = {row["metric"] for row in pq.read_table(run.metrics).to_pylist()}
    assert {"guidance_slope_from_40", "guidance_slope_from_10"} < metrics and "guidance_slope_from_80" not in metrics


def test_phases_are_those_that_the_file_records(run, other_range):
    _redescribed(other_range, {"sigma_max": 40.0}, phases=[40.0, 2.0])
    result = lcm("schedule", "--run", run.root, "--student", other_range)
    assert result.exit_code == 2 and "s40.safetensors is a phased student's" in result.stderr, result.output


@pytest.mark.parametrize("command", ["evaluate", "sample", "compare-samplers"])
def test_every_command_samples_a_file_in_the_range_that_it_records(run, other_range, tmp_path, monkeypatch, command):
    """The preset's sigmas are for its own range: where they would be used, one line says so, and EDM's are taken."""
    chosen, real = [], LatentConsistencyModel.generate

    def generate(model, *arguments, sampler, **named):
        chosen.append(sampler.sigmas)
        return real(model, *arguments, sampler=sampler, **named)

    monkeypatch.setattr(LatentConsistencyModel, "generate", generate)
    words = [command, "--run", run.root, "--student", other_range]
    only = ["--models", "student", "--images-only", "--set", "evaluate.images=1"]
    words += only if command == "evaluate" else ["a red ring", "--out", tmp_path / "grid.png"]
    said = "has sigmas [80.0] for 1 step, outside the 0.01 to 40 that it was trained on: EDM's schedule is used; "
    for options, lines in ((["--steps", 1], 1), (["--steps", 3], 0), (["--steps", 1, "--sampler", "original"], 0)):
        with warnings.catch_warnings(record=True, category=UserWarning) as told:
            warnings.simplefilter("default")  # as in a process of its own
            assert lcm(*words, *options).exit_code == 0
        assert sum(said in str(each.message) for each in told) == len(told) == lines
    assert [sigmas[0] for sigmas in chosen] == pytest.approx([40.0] * 3)


def test_configured_sigmas_within_a_files_range_are_taken_and_never_exported(run, other_range):
    within = load_file(run.config, ["evaluate.student_sigmas={1=[30.0]}", "evaluate.student_steps=[1]"])
    (sampling,) = student_samplings(within, other_range)
    assert sampling.sigmas == (30.0,)
    assert lcm("export", "--run", run.root, "--student", other_range).exit_code == 0
    assert read_description(run.root / "student-export.safetensors")["sigmas"] == {}
