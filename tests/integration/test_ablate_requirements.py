"""What an ablation compares with, runs on and needs: all of it is found before anything is trained."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lcm_distill.config import Config, load_preset
from lcm_distill.config.ablation import load_ablation
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.layout import CacheLayout
from lcm_distill.metrics.metric_definitions import CAPTION_ACCURACY
from lcm_distill.metrics.registry import PROTOCOLS
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.shapes.scenes import render_image
from lcm_distill.stages.ablate import ablate
from tests.ablations import SMALL_CHAIN, rows_of
from tests.command_line import lcm

FEW = ["data.images=24", "evaluate.guidance=2", "evaluate.images=4", "evaluate.student_steps=[1]", "distill.steps=1",
       "distill.checkpoint_every=1"]  # fmt: skip


def few_trials(*assignments: str) -> Config:
    """A configuration whose ablation of one step takes a few seconds."""
    return load_preset("shapes", [*load_ablation("shapes").settings, *SMALL_CHAIN, *FEW, *assignments])


def ablate_default(config: Config, root: Path, executor=None) -> RunFolder:
    run = RunFolder(root)
    with run.opened(config):
        list(ablate(config, run, load_ablation("shapes").select(["default"]), 1, executor))
    return run


def test_an_ablation_that_fails_changes_no_run(tmp_path, finished_run):
    new = ["--preset", "shapes", "--set", "data.source=folder", "--set", f"data.root={tmp_path / 'nowhere'}"]
    kept = tmp_path / "kept"
    shutil.copytree(finished_run.root, kept)
    before = (kept / "config.toml").read_bytes()
    for run, settings in ((tmp_path / "new", new), (kept, ["--set", "device=cuda"])):
        failed = lcm("ablate", "--run", run, "--only", "default", "--seeds", 1, *settings)
        assert failed.exit_code == 2, failed.output
    assert not (tmp_path / "new").exists()
    assert (kept / "config.toml").read_bytes() == before


@pytest.fixture
def folder_of_images(tmp_path) -> Path:
    folder = tmp_path / "real"
    folder.mkdir()
    for number in range(3):
        render_image(5, number, 64)[0].save(folder / f"{number}.png")
    return folder


def test_a_folder_is_a_reference(tmp_path, folder_of_images):
    run = ablate_default(few_trials(f"evaluate.reference.shapes='{folder_of_images}'"), tmp_path / "run")
    rows = rows_of(run)
    assert [(row["model"], row["metric"]) for row in rows] == [
        (model, metric) for model in ("teacher", "student") for metric in ("frechet_distance", "caption_accuracy")
    ]
    assert {row["reference"].split(":")[0] for row in rows} == {"real"}
    text = run.ablation.with_suffix(".md").read_text()
    assert f"Distances are to {rows[0]['reference']}; lower is better" in text and "real images of other" not in text
    assert run.ablation.with_suffix(".png").is_file()


def test_protocols_without_a_reference(tmp_path, monkeypatch):
    """Caption scores alone, as of the CLIP protocols: there is no distance to report."""
    scores = replace(PROTOCOLS["shapes"], name="scores", figures=(CAPTION_ACCURACY,))
    monkeypatch.setitem(PROTOCOLS, "scores", scores)
    run = ablate_default(few_trials("evaluate.protocols=['scores']", "evaluate.teacher=[]"), tmp_path / "run")
    assert [(row["model"], row["metric"], row["reference"]) for row in rows_of(run)] == [
        ("student", "caption_accuracy", None)
    ]
    text = run.ablation.with_suffix(".md").read_text()
    assert "## Caption accuracy (scores)" in text and "Distances" not in text and "## Teachers" not in text
    assert run.ablation.with_suffix(".png").is_file()


class Counting(Serial):
    """Executes here, and counts the tasks."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def run(self, tasks, manifest, open_work):
        self.names += [task.name for task in tasks]
        return super().run(tasks, manifest, open_work)


def test_one_executor_encodes_generates_and_extracts(tmp_path):
    executor = Counting()
    ablate_default(few_trials(), tmp_path / "run", executor)
    kinds = [name.rsplit("-", 1)[0] for name in executor.names]
    assert kinds.count("images") == kinds.count("features") == 2  # teacher and student, a shard each
    encoded = CacheLayout(few_trials())
    assert {encoded.text(1, 1).name, encoded.latents(1).name} <= set(kinds)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["evaluate.protocols=['t2i-benchmark', 'gigagan']"], "pt_inception-2015-12-05-6726825d.pth"),
        (["evaluate.protocols=['fid']"], "evaluate.protocols: metric protocol 'fid' is unknown"),
        (["evaluate.protocols=[]"], "evaluate.protocols is empty"),
        (["evaluate.reference.shapes='nowhere'"], "nowhere is missing: put it there"),
        (["evaluate.images=1"], "evaluate.images = 1 is too few for shapes"),
        (["evaluate.prompts=captions.txt"], "caption 'a red house', which names no shape"),
        (["evaluate.prompts=gone.txt", "evaluate.reference.shapes='captions.txt'"], "gone.txt is missing"),
        (["evaluate.student_steps=[]"], "evaluate.student_steps of step default is empty"),
        (["model.teacher=gone.safetensors"], "gone.safetensors is missing: run `lcm pretrain --run "),
    ],
)
def test_what_is_missing_is_found_before_anything_is_done(tmp_path, monkeypatch, assignments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "captions.txt").write_text("a red ring\na red house\na ring\na heart\n")
    if "evaluate.prompts=captions.txt" in assignments:
        assignments = [*assignments, "evaluate.reference.shapes='captions.txt'"]
    with pytest.raises(UserError, match=re.escape(message)):
        ablate_default(few_trials(*assignments), tmp_path / "run")
    assert not (tmp_path / "run").exists()
