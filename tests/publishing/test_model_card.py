"""A model card says what was measured, and its code works."""

import ast
import json
import re
import shutil
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from lcm_distill import assets
from lcm_distill.config import load_preset
from lcm_distill.evaluation.metric_rows import merged_metrics
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.models.checkpoint import checkpoint_sha256, read_tensors
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm
from tests.runs import borrow


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """The finished run, but for what its stages work on."""
    names = ("config.toml", "environment.json", "student.safetensors", "metrics.parquet", "grid.png")
    return borrow(finished_run, tmp_path / "run", *names)


def data_of(card: ModelCard) -> Any:
    """The front matter."""
    return card.data


def exported(run: RunFolder, *words: object) -> dict:
    result = lcm("export", "--run", run.root, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_figures_are_those_of_these_weights(run):
    found = exported(run, "--format", "diffusers")
    card = ModelCard.load(found["card"])
    rows = [row for row in pq.read_table(run.metrics).to_pylist() if row["model"] == "student"]
    assert rows and sorted(result.metric_value for result in data_of(card).eval_results) == sorted(
        row["value"] for row in rows
    )
    names = {result.metric_name for result in data_of(card).eval_results}
    assert "Fréchet distance: student, 1 step, guidance 2" in names and len(names) == len(rows)
    assert (data_of(card).library_name, data_of(card).pipeline_tag, data_of(card).license) == (
        "diffusers", "text-to-image", "apache-2.0",
    )  # fmt: skip
    assert "| teacher |" in card.text and checkpoint_sha256(run.student) in card.text
    captions = f"{rows[0]['images']:,} held-out captions, seed 0"
    assert {(result.dataset_name, result.dataset_type) for result in data_of(card).eval_results} == {
        (captions, f"{rows[0]['images']}-held-out-captions-seed-0")
    }
    assert f"Of images of {captions}. Distances are to real images of the same captions; row `real` is" in card.text
    assert "| real " in card.text and rows[0]["prompts"] not in card.content
    assert "| steps                      |           6 of 6 |" in card.text
    folder = run.root / "student-export"
    assert found["card"] == str(folder / "README.md") and "](grid.png)" in card.text
    assert (folder / "grid.png").read_bytes() == run.grid.read_bytes()


def test_a_teacher_from_a_file_is_named_without_its_folder(run, tmp_path):
    own = tmp_path / "own.safetensors"
    own.write_bytes(assets.TEACHER.read_bytes())
    run.config.write_text(run.config.read_text().replace('teacher = "shapes"', f'teacher = "{own}"'))
    card = ModelCard.load(exported(run)["card"])
    assert ": the teacher own.safetensors distilled with lcm-distill" in card.text and str(own) not in card.content


def test_figures_of_other_weights_are_left_out(run, tmp_path):
    other = tmp_path / "other.pt"
    torch.save({name: tensor + 0.01 for name, tensor in read_tensors(run.student).items()}, other)
    card = ModelCard.load(exported(run, "--student", other)["card"])
    assert data_of(card).eval_results is None and "These weights were not evaluated." in card.text
    assert "## Training" not in card.text


def test_a_card_says_nothing_of_a_student_from_elsewhere_that_is_true_of_the_runs_own(run, tmp_path):
    other = tmp_path / "other.pt"
    torch.save({name: tensor + 0.01 for name, tensor in read_tensors(run.student).items()}, other)
    found = exported(run, "--student", other)
    card = ModelCard.load(found["card"])
    assert (
        "distilled with lcm-distill" not in card.text and "; from which teacher is not recorded. Guidance" in card.text
    )
    for part in ("data", "teacher"):
        assert re.search(rf"\| {part} +\| not recorded +\|", card.text)
    assert "stand-in VAE, text encoder;" in card.text and "| torch" not in card.text
    assert data_of(card).license == "other"
    assert "![Images" not in card.text and not (run.root / "student-export-card.png").exists()


def test_the_runs_own_student_is_its_own_by_any_path(run, monkeypatch):
    monkeypatch.chdir(run.root)
    found = exported(run, "--student", run.student.name)
    assert (found["trained_steps"], found["of_steps"]) == (6, 6)


def test_a_grid_is_on_the_card_of_those_whose_images_it_shows(finished_run, run, tmp_path):
    (run.root / "cache").symlink_to(finished_run.cache)
    other = tmp_path / "other.pt"
    torch.save({name: tensor + 0.01 for name, tensor in read_tensors(run.student).items()}, other)
    evaluated = lcm("evaluate", "--run", run.root, "--student", other, "--images-only", "--set", "evaluate.images=2")
    assert evaluated.exit_code == 0, evaluated.output
    assert "![Images" not in ModelCard.load(exported(run)["card"]).text
    for words in (["--student", other], ["--teacher", "shapes"]):
        assert "![Images" in ModelCard.load(exported(run, *words)["card"]).text


def test_a_grid_of_an_earlier_version_is_the_runs_own_students(run, tmp_path):
    with Image.open(run.grid) as grid:
        pixels = grid.copy()
    pixels.save(run.grid)  # without the text that names checkpoints
    assert "![Images" in ModelCard.load(exported(run)["card"]).text
    other = tmp_path / "other.pt"
    torch.save({name: tensor + 0.01 for name, tensor in read_tensors(run.student).items()}, other)
    assert "![Images" not in ModelCard.load(exported(run, "--student", other)["card"]).text


def test_figures_of_another_teacher_are_not_beside_a_students(run):
    rows = pq.read_table(run.metrics).to_pylist()
    others = [{**row, "checkpoint_sha256": "f" * 64, "value": 987.5} for row in rows if row["model"] == "teacher"]
    run.metrics.write_bytes(encode_table(merged_metrics(run.metrics, others)))
    text = ModelCard.load(exported(run)["card"]).text
    assert "| teacher |" in text and "987.5" not in text


FIRST_HELD_OUT = """
    SELECT caption FROM samples JOIN captions ON caption_row = captions.row
    WHERE samples.split = 'valid' ORDER BY samples.row LIMIT 14
"""
GENERAL = "a large red circle in the centre on a navy background"


def strings_of(card: str) -> set[str]:
    """The strings that every code of a card has, by its path."""
    codes = re.findall(r"```python\n(.*?)\n```\n", ModelCard.load(card).content, re.DOTALL)
    found = (
        {str(node.value) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)} for code in codes
    )
    return set.intersection(*found)


def test_the_code_has_the_shortest_caption_that_the_run_evaluates(finished_run, run, tmp_path):
    assert GENERAL in strings_of(exported(run)["card"])  # its cache is not there
    (run.root / "cache").symlink_to(finished_run.cache)
    found = json.loads(lcm("inspect", FIRST_HELD_OUT, "--run", finished_run.root, "--json").stdout)
    shortest = min((row["caption"] for row in found), key=len)
    assert len(found) == 14 and shortest != GENERAL and shortest in strings_of(exported(run)["card"])
    other = tmp_path / "other.pt"
    torch.save({name: tensor + 0.01 for name, tensor in read_tensors(run.student).items()}, other)
    assert GENERAL in strings_of(exported(run, "--student", other)["card"])


@pytest.mark.parametrize("form", ["safetensors", "diffusers", "onnx"])
def test_any_caption_stands_in_the_code_as_it_is(run, monkeypatch, form):
    caption = "a \"red\" house, C:\\new\n\u2028 ünder {braces} 'and' ```"
    monkeypatch.setattr("lcm_distill.stages.export.held_out_prompts", lambda *_: [Prompt(0, caption)])
    assert caption in strings_of(exported(run, "--format", form)["card"])


@pytest.mark.parametrize("form", ["safetensors", "sharded", "pt"])
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_the_code_of_a_card_generates_an_image(tmp_path, monkeypatch, form, role):
    run = RunFolder(tmp_path / "run")
    run.open(load_preset("shapes"))
    shutil.copy(assets.STUDENT, run.student)
    options = [] if role == "student" else ["--teacher", assets.TEACHER]
    found = exported(run, "--format", form, *options)
    text = ModelCard.load(found["card"]).content
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(run.root)
    namespace = {}
    exec(code.replace("seed=0", "seed=0, num_inference_steps=1"), namespace)
    assert namespace["images"].shape == (1, 3, 64, 64)


def test_licence_and_base_model_are_what_is_given(run):
    words = ["--license", "cc-by-nc-4.0", "--base-model", "VSehwag24/MicroDiT"]
    text = ModelCard.load(exported(run, *words)["card"]).content
    for line in ("license: cc-by-nc-4.0", "base_model: VSehwag24/MicroDiT", "base_model_relation: finetune"):
        assert f"\n{line}\n" in text
    assert (run.root / "student-export-card.png").read_bytes() == run.grid.read_bytes()


@pytest.mark.parametrize(
    ("option", "wrong"),
    [("--license", "not a licence"), ("--license", ""), ("--base-model", "a b"), ("--base-model", "MicroDiT")],
)
def test_what_the_hub_would_refuse_is_refused_and_nothing_is_written(run, tmp_path, option, wrong):
    result = lcm("export", "--run", run.root, option, wrong, "--out", tmp_path / "student.safetensors")
    assert result.exit_code == 2 and result.stderr.startswith(f"lcm: {option} {wrong!r}: give ")
    assert result.stderr.count("\n") == 1 and not list(tmp_path.glob("student*"))
