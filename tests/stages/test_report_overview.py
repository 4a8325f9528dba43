"""The page of a run begins with what was run; its configuration is written as in a file."""

import json
import re

import pyarrow.parquet as pq
import pytest

from lcm_distill.config import load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.report import report
from tests.command_line import lcm
from tests.conftest import SMALL
from tests.report.test_page import Text
from tests.runs import borrow
from tests.stages.test_report import section


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """A finished run whose record and figures may change."""
    copied = ("config.toml", "environment.json", "metrics.parquet")
    return borrow(finished_run, tmp_path / "run", *copied, linked=["cache", "images", "distill"])


def test_the_page_begins_with_what_was_run_and_what_it_lacks(run):
    environment = json.loads(run.environment.read_text())
    measured = pq.read_table(run.metrics).column("time").to_pylist()
    lcm("report", "--run", run.root)
    content = (run.root / "report.html").read_text()
    first = section(content, "What was run")
    lines = dict(re.findall(r"<tr><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td></tr>", first))
    assert list(lines) == ["preset", "measured", "device", "training", "time in all"]
    assert lines["preset"] == "shapes" and environment["platform"] in lines["device"]
    assert lines["training"] == Text(section(content, "Training").partition("</p>")[0]).text[0].rstrip(".")
    assert lines["measured"].startswith(f"{min(measured):%Y-%m-%d %H:%M} UTC")
    text = "".join(Text(first).text)
    assert "Not here yet: response to guidance (lcm evaluate --guidance 1,2,3); images during training (" in text
    run.metrics.unlink()
    lcm("report", "--run", run.root)
    first = section((run.root / "report.html").read_text(), "What was run")
    assert "Not here yet: figures (lcm evaluate);" in "".join(Text(first).text) and ">measured<" not in first


def test_changed_keys_have_their_values_as_the_file_has_them(run, tmp_path):
    changes = ["evaluate.same_noise=true", "engine.validate_every=5"]
    report(load_preset("shapes", [*SMALL, *changes]), run, tmp_path / "page.html")
    content = section((tmp_path / "page.html").read_text(), "Configuration")
    lines = {key: (own, preset) for key, own, preset in re.findall(3 * r"<td[^>]*>([^<]*)</td>", content)}
    assert lines["evaluate.same_noise"] == ("true", "false")
    assert lines["engine.validate_every"] == ("5", "unset")
