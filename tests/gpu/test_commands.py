"""Every command that computes, end to end, with `device = "auto"`."""

import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import PROCESS, lcm, shapes
from tests.gpu.conftest import GPU, SETTINGS, borrow_cache, on_the_gpu
from tests.runs import borrow

pytestmark = GPU
OPTIONS = shapes(SETTINGS)
ABLATION = ["--only", "default", "--seeds", "1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    """What `lcm run` leaves, in a process of its own."""
    root = tmp_path_factory.mktemp("run")
    command = [*PROCESS, "run", *OPTIONS, "--run", str(root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return RunFolder(root)


def succeed(*arguments: object) -> None:
    result = lcm(*arguments)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


def test_run_leaves_everything(finished):
    assert all(path.is_file() for path in (finished.student, finished.metrics, finished.grid))
    losses = pq.read_table(finished.distill / "events")["loss"].to_pylist()
    assert len(losses) == 6 and all(0 < loss < 10 for loss in losses)


@pytest.mark.parametrize("command", ["precompute", "pretrain"])
def test_stages_that_start_from_nothing(command, tmp_path):
    with on_the_gpu():
        lcm(command, *OPTIONS, "--run", tmp_path)
    assert RunFolder(tmp_path).teacher.is_file() == (command == "pretrain")


def test_distill(cached, tmp_path):
    run = borrow_cache(cached, tmp_path)
    with on_the_gpu():
        lcm("distill", *OPTIONS, "--run", run.root)
    assert run.student.is_file()


def test_ablate(cached, tmp_path):
    run = borrow(cached, tmp_path, "images")  # its settings are those of another cache
    with on_the_gpu():
        lcm("ablate", *OPTIONS, *ABLATION, "--run", run.root)
    assert run.ablation.with_suffix(".parquet").is_file()


@pytest.mark.parametrize(
    "arguments",
    [["schedule"], ["evaluate", "--steps", "2", "--guidance", "1,2"], ["verify"], ["status"], ["cache", "compact"]],
    ids=" ".join,
)
def test_commands_on_a_finished_run(finished, arguments):
    succeed(*arguments, "--run", finished.root)


@pytest.mark.parametrize("command", ["sample", "compare-samplers"])
def test_images_of_a_caption(finished, tmp_path, command):
    with on_the_gpu():
        lcm(command, "a large red circle", "--run", finished.root, "--out", tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_export(finished, tmp_path):
    succeed("export", "--run", finished.root, "--out", tmp_path / "student.safetensors")
    assert Path(tmp_path / "student.safetensors").is_file()
