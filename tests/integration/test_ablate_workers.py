"""An ablation whose work is shared by launched ranks or by Ray actors has the figures of one process."""

from pathlib import Path

import pytest

from lcm_distill.pipeline.run_folder import RunFolder
from tests.ablations import rows_of
from tests.command_line import lcm, shapes
from tests.conftest import SMALL
from tests.ranks import finish, start

SETTINGS = [
    *SMALL, "data.images=16", "data.valid_fraction=0.5", "evaluate.images=4", "evaluate.shard_images=2",
    "evaluate.student_steps=[1]", "evaluate.teacher=[['euler', 1]]", "distill.batch_size=4", "distill.steps=1",
    "distill.checkpoint_every=1",
]  # fmt: skip
COMMAND = ["ablate", *shapes(SETTINGS), "--only", "original,default", "--seeds", 1]


def figures(run: Path) -> dict[tuple, float]:
    """Values by model, step of the chain and metric."""
    return {(row["model"], row["step"], row["metric"]): row["value"] for row in rows_of(RunFolder(run))}


def logs_of(run: Path) -> set[str]:
    return {path.stem for path in (run / "logs").glob("*.log")}


@pytest.fixture(scope="module")
def by_one(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("one")
    result = lcm(*COMMAND, "--run", run)
    assert result.exit_code == 0, result.output
    assert logs_of(run) == {"main"}
    return run


def ablate_in_a_rank(run: Path) -> None:
    raise SystemExit(lcm(*COMMAND, "--run", run).exit_code)


@pytest.mark.slow
def test_launched_ranks(by_one, tmp_path):
    """They train together, so sums have another order, and share encoding, generating and extracting."""
    assert finish(start(2, ablate_in_a_rank, tmp_path)) == [0, 0]
    assert figures(tmp_path) == pytest.approx(figures(by_one), rel=1e-3)
    assert logs_of(tmp_path) == {"rank-0", "rank-1"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_actors(by_one, tmp_path):
    result = lcm(*COMMAND, "--run", tmp_path, "--executor", "ray", "--workers", 2)
    assert result.exit_code == 0, result.output
    assert figures(tmp_path) == figures(by_one)
    assert len(logs_of(tmp_path)) > len({"main"})
