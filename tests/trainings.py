"""Short trainings of the small run."""

import pytest
import torch

from lcm_distill.config import load_preset
from tests.conftest import SMALL
from tests.runs import borrow


@pytest.fixture
def start(finished_run, tmp_path):
    """A configuration, and a run folder whose cache is made."""

    def make(*assignments: str):
        config = load_preset("shapes", [*SMALL, "distill.steps=3", *assignments])
        run = borrow(finished_run, tmp_path / str(len(list(tmp_path.iterdir()))), "cache")
        run.open(config)
        return config, run

    return make


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)
