"""A student that is not trained at all is measured beside teacher and student, from the teacher alone."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lcm_distill.api import LatentConsistencyModel, assemble_untrained, open_model
from lcm_distill.config import load_file
from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import file_sha256
from lcm_distill.evaluation import results
from lcm_distill.evaluation.metric_rows import merged_metrics
from lcm_distill.evaluation.prompts import find_prompts
from lcm_distill.evaluation.samplings import samplings
from lcm_distill.metrics.figure_styles import FIGURE_STYLES
from lcm_distill.models.checkpoint import redescribe
from lcm_distill.models.checkpoint_description import read_description
from lcm_distill.models.checkpoint_identity import checkpoint_sha256
from lcm_distill.models.networks import teacher_path
from lcm_distill.models.student_description import StudentSampling
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.comparison import comparison_panels
from lcm_distill.stages.evaluate import evaluate
from lcm_distill.training.student_networks import student_from_teacher
from tests.command_line import lcm
from tests.runs import borrow

UNTRAINED = ["evaluate.models=['untrained']"]


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """The finished small run before its training."""
    return borrow(finished_run, tmp_path / "run", "config.toml", linked=("images", "cache"))


def measured(run: RunFolder) -> list[dict]:
    return [row for row in pq.read_table(run.metrics).to_pylist() if row["model"] == "untrained"]


def test_it_needs_the_teacher_alone_and_is_the_student_before_its_first_step(run):
    config = load_file(run.config, UNTRAINED)
    list(evaluate(config, run))
    rows, prompts = measured(run), find_prompts(config, run)
    assert [(row["sampler"], row["steps"], row["guidance"], row["network_evaluations"]) for row in rows[::2]] == [
        ("consistency", 1, 2.0, 1), ("consistency", 2, 2.0, 2),
    ]  # fmt: skip
    opened = open_model(run.root, "teacher")
    first = student_from_teacher(config.model, config.distill)
    student = LatentConsistencyModel(
        first, opened.image_encoder, opened.text_encoder, StudentSampling(diffusion=config.diffusion)
    )
    ids = [prompt.image_id for prompt in prompts]
    for sampling in samplings(config):
        images = student.generate([prompt.caption for prompt in prompts], None, 2.0, 0, ids, sampling.sampler)
        expected = (images.permute(0, 2, 3, 1) * 255).numpy()
        found = [next(run.evaluate.glob(f"{sampling.name}-*/*/{number}.png")) for number in ids]
        assert np.abs(np.stack([np.asarray(Image.open(path)) for path in found]) - expected).max() <= 1.5


def test_it_has_an_identity_of_its_own(run):
    config = load_file(run.config, ["evaluate.models=['teacher', 'untrained']"])
    list(evaluate(config, run))
    teacher = teacher_path(config.model)
    (own,) = {row["checkpoint_sha256"] for row in measured(run)}
    assert {row["checkpoint"] for row in measured(run)} == {str(teacher)} and own != checkpoint_sha256(teacher)
    others = {row["checkpoint_sha256"] for row in pq.read_table(run.metrics).to_pylist() if row["model"] == "teacher"}
    assert others == {checkpoint_sha256(teacher)}


def test_figures_of_the_teacher_by_an_earlier_version_stay_the_teachers(run, tmp_path):
    config = load_file(run.config, ["evaluate.models=['teacher', 'untrained']"])
    list(evaluate(config, run))
    rows, teacher = pq.read_table(run.metrics).to_pylist(), teacher_path(config.model)
    earlier = [{**row, "checkpoint_sha256": file_sha256(teacher)} for row in rows if row["model"] == "teacher"]
    path = tmp_path / "earlier.parquet"
    path.write_bytes(encode_table(pa.Table.from_pylist(earlier, schema=pq.read_schema(run.metrics))))
    new = [row for row in rows if row["model"] == "untrained"]
    assert merged_metrics(path, new).to_pylist() == [*earlier, *new]  # nothing tells here what the teacher's is now
    assert merged_metrics(path, rows).to_pylist() == rows


def test_nothing_is_generated_twice(run, monkeypatch):
    config = load_file(run.config, UNTRAINED)
    list(evaluate(config, run))
    values = [row["value"] for row in measured(run)]
    monkeypatch.setattr("lcm_distill.api.TextToImage.generate", None)
    list(evaluate(config, run))
    assert [row["value"] for row in measured(run)] == values


def test_it_is_the_same_at_every_guidance_scale(run):
    config = load_file(run.config)
    model = assemble_untrained(config.model, config.encoders, StudentSampling(guidance_range=(1.0, 3.0)))
    one, other = (model.generate("a red ring", 1, scale, 0) for scale in (1.0, 30.0))  # without a warning
    assert (one == other).all() and one.std() > 0.05


def test_it_is_sampled_as_the_student_is(finished_run, tmp_path):
    """At the sigmas that `lcm schedule` has stored with it."""
    run = borrow(finished_run, tmp_path / "run", "config.toml", "student.safetensors")
    described = read_description(run.student)
    run.student.write_bytes(redescribe(run.student, {**described, "sigmas": {"1": [70.0], "2": [70.0, 3.0]}}))
    chosen = samplings(load_file(run.config, ["evaluate.models=['untrained', 'student']"]), run.student)
    assert [(each.model, each.sigmas) for each in chosen] == [
        (model, sigmas) for model in ("untrained", "student") for sigmas in ((70.0,), (70.0, 3.0))
    ]


def test_options_vary_its_steps(run):
    words = ["evaluate", "--run", run.root, "--models", "untrained", "--dry-run", "--json"]
    result = lcm(*words, "--steps", 4)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)["evaluate"]
    assert plan["samplings"] == ["untrained student, 4 steps, guidance 2"] and not plan["missing"]
    result = lcm(*words, "--set", "model.teacher=gone.safetensors")
    assert "gone.safetensors is missing" in json.loads(result.stdout)["evaluate"]["missing"][0]


def test_a_missing_teacher_is_refused(run):
    config = load_file(run.config, [*UNTRAINED, "model.teacher=gone.safetensors"])
    with pytest.raises(UserError, match=r"gone\.safetensors is missing: run `lcm pretrain .*` and set model\.teacher="):
        list(evaluate(config, run))
    assert not run.evaluate.exists()


def test_guidance_tables_and_charts_have_it(run):
    list(evaluate(load_file(run.config, [*UNTRAINED, "evaluate.guidance=[2, 1]"]), run))
    lines = run.guidance.with_suffix(".md").read_text().splitlines()
    row = next(line for line in lines if line.startswith("| untrained student, 2 steps"))
    two, one = (cell.strip() for cell in row.split("|")[2:4])
    assert one == two  # the same at every scale


def test_it_stands_once_between_teacher_and_students(run, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(evaluate(load_file(run.config, UNTRAINED), run))
    rows = [*pq.read_table(finished_run.metrics).to_pylist(), *measured(run)]
    for name in ("a", "b"):
        other = borrow(finished_run, tmp_path / name, "config.toml")
        other.metrics.write_bytes(encode_table(pa.Table.from_pylist(rows, schema=pq.read_schema(run.metrics))))
    assert lcm("compare", "a", "b", "--out", "both").exit_code == 0
    both = pq.read_table("both.parquet").to_pylist()
    assert [(row["model"], row["run"]) for row in both[4:12:2]] == [
        ("untrained", None), ("untrained", None), ("student", "a"), ("student", "a"),
    ]  # fmt: skip
    for students, labels in (("a", {"untrained student", "a"}), ("ab", {"a", "b"})):
        panels = comparison_panels([row for row in both if (row["run"] or "a") in students], [2.0], FIGURE_STYLES)
        assert {line.label for panel in panels for line in panel.lines} == labels
    assert lcm("report", "--run", "a").exit_code == 0
    assert ">untrained student</text>" in (tmp_path / "a" / "report.html").read_text()


def test_the_grid_has_the_distance_of_each_column(run, monkeypatch):
    shown = []
    monkeypatch.setattr(results, "write_grid", lambda _path, columns, _prompts: shown.extend(columns))
    list(evaluate(load_file(run.config, UNTRAINED), run))
    distances = [row["value"] for row in measured(run) if row["metric"] == "frechet_distance"]
    assert [(image_set.sampling.heading, figure) for image_set, figure in shown] == [
        (f"untrained student\n{steps}", f"Fréchet distance {distance:.2f}")
        for steps, distance in zip(("1 consistency step", "2 consistency steps"), distances, strict=True)
    ]
