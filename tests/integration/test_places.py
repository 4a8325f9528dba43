"""Where a result could not be written, or added to what is there, nothing is begun."""

import pytest

from tests.command_line import lcm
from tests.runs import borrow

KEPT = ("config.toml", "student.safetensors", "metrics.parquet")


@pytest.fixture
def run(finished_run, tmp_path):
    """A trained run whose results may change, without its training and images."""
    return borrow(finished_run, tmp_path / "run", *KEPT, linked=["cache", "images"])


@pytest.mark.parametrize(
    ("command", "result", "work"),
    [
        ("distill", "student.safetensors", "distill"),
        ("pretrain", "teacher.safetensors", "pretrain"),
        ("evaluate", "metrics.parquet", "evaluate"),
        ("evaluate", "grid.png", "evaluate"),
        ("evaluate", "guidance.md", "evaluate"),
        ("evaluate", "guidance-frechet-distance.png", "evaluate"),
    ],
)
def test_a_folder_where_a_result_goes_is_refused_before_the_work(run, command, result, work):
    (run.root / result).unlink(missing_ok=True)
    (run.root / result).mkdir()
    refused = lcm(command, "--run", run.root)
    line = f"lcm: {run.root / result} is where a result goes, and no regular file: move it away"
    assert (refused.exit_code, refused.stderr.strip().splitlines()[-1]) == (2, line)
    assert not (run.root / work).exists() and (run.root / result).is_dir()
    assert (
        f"{run.root / result} is where a result goes" in lcm(command, "--run", run.root, "--dry-run", "--json").stdout
    )


def test_damaged_figures_are_refused_before_images_are_generated(run):
    run.metrics.write_bytes(run.metrics.read_bytes()[:-8])
    refused = lcm("evaluate", "--run", run.root)
    remedy = f"delete it, and `lcm evaluate --run {run.root}` writes it again"
    assert refused.exit_code == 3 and f"{run.metrics} is damaged: {remedy}" in refused.stderr
    assert not run.evaluate.exists()
