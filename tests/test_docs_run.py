"""What stands in the README and docs/ runs: commands in their order, queries and snippets, on the embedded default."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcm_distill.config import load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm, settings
from tests.conftest import SMALL
from tests.documents import FULL_SIZE, PAGES, ROOT, blocks, commands, lines
from tests.runs import borrow

TESTED_ELSEWHERE = {
    "sh": {"docs/own-images.md": "test_own_images.py", "docs/publishing.md": "test_publishing.py",
           "docs/onnx.md": "publishing/test_onnx.py"},
    "python": {"docs/publishing.md": "test_publishing.py", "docs/extending.md": "test_extending.py"},
    "diff": {"docs/extending.md": "test_extending.py"},
    "sql": {"docs/queries.md": "test_queries.py"},
}  # fmt: skip
"""The tests that run a page's blocks of a kind, where these are not the ones below."""
TUTORIAL, CACHE_FORMAT = "docs/tutorial.md", "docs/cache-format.md"
MINUTES = {"docs/stages/ablate.md"}
PLANNED = [words for page in PAGES for words in commands(page, "text", launched=False)
           if words[0] in ("precompute", "pretrain", "evaluate", "fetch")]  # fmt: skip
"""Commands in blocks of `text` whose plan takes little."""
AT_FULL_SIZE = [words for page in PAGES if page != TUTORIAL for words in commands(page, "sh") if FULL_SIZE in words]
QUICK = {
    "pretrain": ["pretrain.steps=4", "pretrain.batch_size=8", "pretrain.checkpoint_every=2", "pretrain.warmup_steps=1"],
    "schedule": ["schedule.samples=16", "schedule.steps=[1, 2]"],
}
"""Settings of commands, beside `SMALL`, that make them short."""


@pytest.fixture
def in_run(finished_run, tmp_path, monkeypatch, bucket, short_trajectories) -> None:
    """A folder in which `runs/shapes` is the finished small run, and `my-images` holds images with captions."""
    linked = {"images", "distill"}  # which no command changes once they are finished
    copied = {path.name for path in finished_run.root.iterdir()} - linked
    borrow(finished_run, tmp_path / "runs" / "shapes", *copied, linked=linked)
    (tmp_path / "my-images").mkdir()
    for name in ("0001", "0002"):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "my-images" / f"{name}.png")
        (tmp_path / "my-images" / f"{name}.txt").write_text("a black square")
    monkeypatch.chdir(tmp_path)


def pages_with(kind: str, *without: str) -> list[str]:
    elsewhere = {*TESTED_ELSEWHERE.get(kind, ()), *without}
    return [page for page in PAGES if page not in elsewhere and blocks(page, kind)]


def short(words: list[str]) -> list[str]:
    """A command with the settings of a small run where it begins one."""
    begins = "--preset" in words and words[0] in ("run", "precompute", "distill", "pretrain", "ablate")
    return [*words, *settings([*(SMALL if begins else ()), *QUICK.get(words[0], ())])]


def test_other_tests_read_the_pages_that_are_theirs():
    for tests in TESTED_ELSEWHERE.values():
        for page, name in tests.items():
            assert Path(page).name in (ROOT / "tests" / name).read_text()


def test_blocks_that_are_run_have_commands_that_a_test_can_run():
    """Those of `make` install: their targets exist, as another test sees."""
    for page in PAGES:
        for words in lines(page, "sh"):
            assert words[0] in ("lcm", "make") or words[:2] == ["python", "examples/draw_with_onnx.py"], (page, words)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page in MINUTES else page for page in pages_with("sh", TUTORIAL)],
)
def test_commands(in_run, page):
    for words in commands(page, "sh"):
        if FULL_SIZE not in words:
            result = lcm(*short(words))
            assert result.exit_code == 0, (words, result.output)


@pytest.mark.slow  # networks of full size are counted, layer by layer
@pytest.mark.parametrize(
    "words",
    AT_FULL_SIZE,
    ids=" ".join,
)
def test_commands_that_plan_at_full_size(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = lcm(*words)
    assert "--dry-run" in words and result.exit_code == 0, result.output


@pytest.mark.parametrize("words", PLANNED, ids=" ".join)
def test_what_needs_more_than_a_test_has_is_planned(tmp_path, monkeypatch, words):
    RunFolder(tmp_path / "runs" / "xl").open(load_preset(FULL_SIZE))
    monkeypatch.chdir(tmp_path)
    result = lcm(*words, "--dry-run")
    if any(word.startswith("data.root=") for word in words):  # which is not here: the plan is printed before it says so
        assert result.exit_code == 2 and "latent bytes per sample" in result.stdout, result.output
        assert result.stderr.splitlines()[-1].startswith("lcm: data.root = '/data/JourneyDB': there is no folder")
    else:
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("page", pages_with("python", CACHE_FORMAT))
def test_snippets(in_run, page):
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), {})


def test_a_stranger_reads_the_cache(in_run):
    """By the snippets of the specification, in a process without the package."""
    code = "import sys; sys.modules['lcm_distill'] = None\n" + "\n".join(blocks(CACHE_FORMAT, "python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = done.stdout.splitlines()
    assert 40 < len(read) < 72 and all(line.endswith("(8, 8, 8) (16, 64)") for line in read)


@pytest.mark.slow
def test_the_tutorial_works_on_the_embedded_default(tmp_path, monkeypatch):
    """Its preset, data, archives and teacher are exchanged for those of `shapes`, which are there."""
    monkeypatch.chdir(tmp_path)
    full_size = re.compile(r" --set (data.root|data.archives|model.teacher)=\S+")
    for words in commands(TUTORIAL, "sh"):
        text = full_size.sub("", " ".join(words)).replace(FULL_SIZE, "shapes")
        result = lcm(*short(text.split()))
        assert result.exit_code == 0, (words, result.output)
    run = RunFolder(Path("runs/xl"))
    assert run.metrics.is_file() and (run.root / "report.html").is_file() and Path("student/README.md").is_file()
