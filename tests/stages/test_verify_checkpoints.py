"""`lcm verify` looks at the checkpoints of a run's trainings as well."""

import pytest

from lcm_distill.core.errors import DataError
from lcm_distill.stages.verify import Verification
from tests.files import flip
from tests.runs import borrow


def verified(config, run) -> Verification:
    verification = Verification(config, run)
    list(verification.check())
    return verification


def test_a_damaged_checkpoint_is_named(small_config, finished_run, tmp_path):
    run = borrow(finished_run, tmp_path, "config.toml", "cache", "distill")
    newest = max((run.distill / "checkpoints").iterdir())
    assert verified(small_config, run).result()["sound"]
    flip(newest / "__0_0.bin")
    verification = verified(small_config, run)
    assert list(verification.results) == [str(newest)] and not verification.result()["sound"]
    with pytest.raises(DataError, match=r"step-0000006: a training resumes from the checkpoint before; delete this"):
        verification.raise_if_broken()
