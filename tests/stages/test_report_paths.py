"""A page can be passed on: it says of no file where on a machine it lies."""

import pyarrow as pa
import pyarrow.parquet as pq

from lcm_distill.config import load_preset
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.stages.report import report
from tests.conftest import SMALL
from tests.report.test_page import Text
from tests.runs import borrow


def test_no_path_of_the_machine_is_in_the_page(finished_run, tmp_path):
    copied = ("config.toml", "environment.json", "metrics.parquet", "distill", "student.safetensors")
    run = borrow(finished_run, tmp_path / "run", *copied, linked=["cache", "images"])
    rows = pq.read_table(run.metrics).to_pylist()
    elsewhere = {"student": str(run.root / "student.safetensors"), "teacher": "/home/somebody/runs/full/teacher.pt"}
    for row in rows:
        row["checkpoint"] = elsewhere.get(row["model"], row["checkpoint"])
    run.metrics.write_bytes(encode_table(pa.Table.from_pylist(rows, pq.read_schema(run.metrics))))
    config = load_preset("shapes", [*SMALL, "model.teacher=/home/somebody/runs/full/teacher.pt"])
    report(config, run, tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text()
    assert "/home" not in content and str(run.root) not in content
    assert {"student.safetensors", ".../full/teacher.pt"} <= {*Text(content.partition("<h2>Provenance</h2>")[2]).text}
    assert ".../full/teacher.pt" in Text(content.partition("<h2>Configuration</h2>")[2]).text
