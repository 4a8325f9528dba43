"""What a real GPU must show: `make test-gpu`.

On a machine that has PyTorch, pytest and the source alone, with PYTHONPATH=src:. in the project's root:

    python3 -m pytest -c /dev/null --rootdir . -p no:cacheprovider tests/gpu
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lcm_distill.config import Config, load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from tests.conftest import SMALL
from tests.runs import borrow

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")]
"""The marks of every file here."""

SETTINGS = [
    *SMALL,
    "engine.tensorboard=false",
    "distill.matching.weight=1",
    "pretrain.steps=6",
    "pretrain.batch_size=8",
    "pretrain.checkpoint_every=2",
    "schedule.steps=[2]",
    "schedule.samples=16",
]


def small(*settings: str) -> Config:
    """A small run of the embedded default on whatever GPU there is."""
    return load_preset("shapes", [*SETTINGS, *settings])


@contextmanager
def on_the_gpu() -> Iterator[None]:
    """What is done here must have taken memory of the GPU; there may be some from before."""
    before = torch.cuda.memory_stats().get("allocation.all.allocated", 0)
    yield
    assert torch.cuda.memory_stats()["allocation.all.allocated"] > before + 100, "the GPU had nothing to do"


@pytest.fixture(scope="session")
def cached(tmp_path_factory) -> RunFolder:
    """A run folder with a cache."""
    from lcm_distill.stages.precompute import precompute

    run = RunFolder(tmp_path_factory.mktemp("cached"))
    run.open(small())
    with on_the_gpu():
        for _ in precompute(small(), run):
            pass
    return run


def borrow_cache(cached: RunFolder, root: Path) -> RunFolder:
    """A new run with a copy of another one's cache, open."""
    run = borrow(cached, root, "images", "cache")
    run.open(small())
    return run
