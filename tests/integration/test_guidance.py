"""Figures against the guidance scale, and the warning outside the trained range."""

import shutil

import pyarrow.parquet as pq
import pytest

from lcm_distill.config import load_file
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.evaluate import evaluate


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """The finished small run, with a place of its own for what is drawn."""
    own = RunFolder(tmp_path, finished_run)
    for path in (finished_run.config, finished_run.student):
        shutil.copy(path, tmp_path)
    shutil.copytree(finished_run.evaluate, own.evaluate)
    return own


def test_every_way_at_every_scale(run):
    config = load_file(run.config, ["evaluate.guidance_sweep=[2, 1]"])
    reports = [report for report in evaluate(config, run) if report.label == "sweep"]
    ways = [
        ("teacher", "heun", 3),
        ("teacher", "euler", 2),
        ("student", "consistency", 1),
        ("student", "consistency", 2),
    ]
    assert reports[-1].done == 14 * 4 * 2 and reports[-1].resumed == 14 * 4  # guidance 2 is what `evaluate` drew
    rows = pq.read_table(f"{run.guidance}.parquet").to_pylist()
    assert [(row["model"], row["sampler"], row["steps"], row["guidance"]) for row in rows[::2]] == [
        (*way, scale) for scale in (2.0, 1.0) for way in ways
    ]
    plain = {row["steps"]: row["network_evaluations"] for row in rows if row["guidance"] == 1}
    assert plain[3] == 5  # two Heun steps and an Euler step at the end, without a second pass for guidance
    metrics = pq.read_table(run.metrics).to_pylist()
    assert {row["guidance"] for row in metrics} == {2.0, None}
    same = [row["value"] for row in metrics if row["model"] != "real"]
    assert same == [row["value"] for row in rows if row["guidance"] == 2]
    text = run.guidance.with_suffix(".md").read_text()
    assert "trained on scales from 1 to 3" in text and "| teacher, 3 Heun steps" in text
    assert run.guidance.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_scale_outside_the_trained_range_warns(run):
    config = load_file(run.config, ["evaluate.guidance=4", "evaluate.teacher=[]"])
    with pytest.warns(UserWarning, match="guidance 4 lies outside 1 to 3, which this student was trained on"):
        list(evaluate(config, run))
    assert not run.guidance.with_suffix(".md").exists()
