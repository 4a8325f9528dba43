"""Results go where a path leads that anyone may give, and nothing else there is touched."""

import json
import os
import shutil

import pytest
import torch

from lcm_distill import assets
from lcm_distill.models.checkpoint import checkpoint_sha256
from lcm_distill.models.weight_shards import INDEX_FILE, write_shards
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.publishing.export_folder import WEIGHTS as WEIGHTS_FILE
from tests.command_line import lcm

SHARD = "model-00001-of-00001.safetensors"
WEIGHTS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(4)}


@pytest.fixture
def run(finished_run, tmp_path, monkeypatch) -> RunFolder:
    """A run with a student alone; the working directory is beside it."""
    own = RunFolder(tmp_path / "run")
    own.root.mkdir()
    for path in (finished_run.config, finished_run.student):
        shutil.copy(path, own.root)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return own


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(result, code):
    assert result.exit_code == code and result.stderr.count("\n") == 1 and not result.stdout, result.output
    return result.stderr


def foreign_shards(folder):
    """A download of several files with an index, none of which `lcm export` wrote."""
    write_shards(folder, WEIGHTS, {})
    index = json.loads((folder / INDEX_FILE).read_text())
    index["metadata"] = {"total_size": 40}
    (folder / INDEX_FILE).write_text(json.dumps(index))


def cut_index(folder):
    write_shards(folder, WEIGHTS, {})
    (folder / INDEX_FILE).write_text("{")


def further_file(folder):
    write_shards(folder, WEIGHTS, {})
    (folder / "notes.md").write_text("notes")


HOLDS = {
    "a teacher": lambda folder: shutil.copytree(assets.TEACHER.parent, folder, dirs_exist_ok=True),
    "another's shards": foreign_shards,
    "shards without an index": lambda folder: (folder / SHARD).write_bytes(b"weights"),
    "a damaged index": cut_index,
    "an export and notes": further_file,
    "a folder": lambda folder: (folder / "more").mkdir(),
}


@pytest.mark.parametrize(("what", "out"), [*((what, "models") for what in HOLDS), ("a teacher", ".")])
def test_a_folder_that_holds_anything_else_is_refused_and_stays(run, tmp_path, monkeypatch, what, out):
    folder = tmp_path / "here" / "models"
    folder.mkdir()
    HOLDS[what](folder)
    before = sorted(folder.rglob("*")), contents(folder)
    monkeypatch.chdir(folder if out == "." else folder.parent)
    said = one_line(lcm("export", "--run", run.root, "--format", "sharded", "--out", out), 2)
    assert "which no earlier export wrote: give --out a folder that is empty or not there" in said
    assert (sorted(folder.rglob("*")), contents(folder)) == before


@pytest.mark.parametrize(
    ("form", "out"), [("sharded", "empty"), ("sharded", "new/deep"), ("sharded", "linked"), ("diffusers", "empty")]
)
def test_a_folder_is_written_and_again(run, tmp_path, out, form):
    here = tmp_path / "here"
    (tmp_path / "target").mkdir()
    if out == "linked":
        (here / "linked").symlink_to(tmp_path / "target")
    if out == "empty":
        (here / "empty").mkdir()
    for _ in range(2):
        result = lcm("export", "--run", run.root, "--format", form, "--out", out, "--json")
        assert result.exit_code == 0, result.output
    weights = here / out / (INDEX_FILE if form == "sharded" else WEIGHTS_FILE)
    assert checkpoint_sha256(weights) == checkpoint_sha256(run.student)
    assert out != "linked" or (here / out).is_symlink()
    (here / out / "notes.txt").write_text("mine")
    said = one_line(lcm("export", "--run", run.root, "--format", form, "--out", out), 2)
    assert "holds notes.txt, which no earlier export wrote" in said and (here / out / "notes.txt").is_file()


def test_the_working_directory_is_not_replaced(run, tmp_path):
    assert "is the working directory" in one_line(
        lcm("export", "--run", run.root, "--format", "sharded", "--out", "."), 2
    )


FOLDERS = [".", "/", "folder"]
COMMANDS = {
    "export": ["export", "--run", "RUN", "--format", "safetensors"],
    "export pt": ["export", "--run", "RUN", "--format", "pt"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("out", FOLDERS)
def test_a_folder_where_a_file_is_meant_is_refused_at_once(run, tmp_path, monkeypatch, command, out):
    monkeypatch.setattr("lcm_distill.stages.export._weights", lambda *_: pytest.fail("weights were read"))
    (tmp_path / "here" / "folder").mkdir()
    words = [str(run.root) if word == "RUN" else word for word in COMMANDS[command]]
    before = sorted(tmp_path.rglob("*"))
    assert "exists and is not a regular file" in one_line(lcm(*words, "--out", out), 4)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_a_comparison_needs_a_name(run, tmp_path, out):
    before = sorted(tmp_path.rglob("*"))
    assert "is a folder: add a name for the results, such as" in one_line(lcm("compare", run.root, "--out", out), 2)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_comparison_is_written_whole_or_not_at_all(finished_run, tmp_path):
    (tmp_path / "both.parquet").mkdir()
    result = lcm("compare", finished_run.root, "--out", tmp_path / "both")
    assert "both.parquet: exists and is not a regular file" in one_line(result, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["both.parquet"]


@pytest.mark.parametrize(
    "words",
    [
        ["export", "--run", "RUN", "--format", "sharded", "--out", "file"],
        ["export", "--run", "RUN", "--format", "sharded", "--out", "file/deep"],
        ["export", "--run", "RUN", "--out", "file/a.safetensors"],
        ["fetch", "--preset", "microdit_xl_512", "--to", "file"],
    ],
)
def test_a_file_where_a_folder_is_meant_is_refused(run, tmp_path, monkeypatch, words):
    monkeypatch.setattr("lcm_distill.stages.fetch._write", lambda *_: pytest.fail("something was fetched"))
    (tmp_path / "here" / "file").write_text("mine")
    result = lcm(*(str(run.root) if word == "RUN" else word for word in words))
    assert result.exit_code in (2, 4) and "file" in result.stderr.strip().splitlines()[-1], result.output
    assert isinstance(result.exception, SystemExit)
    assert (tmp_path / "here" / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "work"),
    [
        (["sample", "a red square"], "sample.open_for"),
        (["compare-samplers", "a red square"], "sample.open_for"),
        (["export", "--run", "RUN"], "export._weights"),
        (["export", "--run", "RUN", "--format", "sharded"], "export._weights"),
        (["report", "--run", "RUN"], "report._figures"),
        (["compare", "RUN"], "compare._figures"),
    ],
)
@pytest.mark.parametrize("out", ["file/a.png", "/dev/null/new/a"])
def test_a_result_that_cannot_be_written_is_refused_before_the_work(run, tmp_path, monkeypatch, words, work, out):
    monkeypatch.setattr(f"lcm_distill.stages.{work}", lambda *_: pytest.fail("the work began"))
    (tmp_path / "here" / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    said = one_line(lcm(*(str(run.root) if word == "RUN" else word for word in words), "--out", out), 4)
    assert out.removesuffix(".png") in said  # of `compare`, --out names several files
    assert "Not a directory: part of the path is a file: give another one" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_fetch_refuses_a_folder_that_cannot_be_written_before_it_downloads(monkeypatch):
    monkeypatch.setattr("lcm_distill.stages.fetch._write", lambda *_: pytest.fail("something was fetched"))
    said = one_line(lcm("fetch", "--preset", "microdit_xl_512", "--to", "/dev/null/weights"), 4)
    assert "/dev/null/weights/vae: Not a directory" in said


def test_fetch_touches_nothing_beside_its_folders(tmp_path, monkeypatch):
    """`--to` may be any folder: what others left there, at any depth, is theirs."""
    monkeypatch.setattr("lcm_distill.stages.fetch._write", lambda part, folder: (folder / "weights").write_text("w"))
    theirs = tmp_path / "run" / f".writing-{2**22 + 1}@{os.uname().nodename}-x~"
    theirs.parent.mkdir()
    theirs.write_text("unfinished")
    result = lcm("fetch", "--preset", "microdit_xl_512", "--to", tmp_path)
    assert result.exit_code == 0 and theirs.read_text() == "unfinished"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "text", "vae"]
