"""What `lcm status` says of an evaluation."""
# PyArrow ships no types.
# pyright: reportUnknownMemberType=false

from lcm_distill.evaluation.table_schemas import METRICS
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.stages.status import status
from tests.runs import borrow


def test_a_table_without_a_figure_is_none(small_config, finished_run, tmp_path):
    copied = ("config.toml", "metrics.parquet")
    run = borrow(finished_run, tmp_path / "run", *copied, linked=["cache", "images", "evaluate"])
    assert status(small_config, run)["evaluate"]["metrics"] is True
    run.metrics.write_bytes(encode_table(METRICS.empty_table()))  # as after `--images-only`
    assert status(small_config, run)["evaluate"]["metrics"] is False
