"""`lcm report` writes one page of what a run has, and nothing where there is nothing."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.config import load_preset
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.charts import Panel
from lcm_distill.stages import report as stage
from lcm_distill.stages.report import report
from tests.command_line import lcm
from tests.conftest import SMALL
from tests.report.test_page import Text
from tests.runs import borrow


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """A finished run whose files may change."""
    copied = ("config.toml", "environment.json", "metrics.parquet", "grid.png", "distill", "student.safetensors")
    return borrow(finished_run, tmp_path / "run", *copied, linked=["cache", "images"])


def test_the_page_has_what_the_run_has(run):
    result = lcm("report", "--run", run.root)
    assert result.exit_code == 0 and "report.html" in result.stderr
    content = (run.root / "report.html").read_text()
    text = " ".join(Text(content).text)
    rows = pq.read_table(run.metrics).to_pylist()
    distances = [row["value"] for row in rows if row["metric"] == "frechet_distance"]
    assert len(distances) > 3 and all(f"{distance:.2f}" in text for distance in distances)
    assert all(row["checkpoint_sha256"] in text for row in rows if row["checkpoint_sha256"])
    assert "6 steps in" in text and "distill.matching.weight" in text and "stand-in" in text
    titles = re.findall(r"<h2>([^<]*)</h2>", content)
    assert titles == ["Figures", "Images", "Training", "Data", "Configuration", "Provenance"]
    assert content.count("<svg") == 2 + 4 and content.count("data:image/png") == 1


def test_the_page_is_the_same_each_time(run, tmp_path):
    pages = [tmp_path / f"{number}.html" for number in range(2)]
    for page in pages:
        lcm("report", "--run", run.root, "--out", page)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_what_was_left_out_is_counted_with_an_example(run, tmp_path):
    (run.root / "cache").unlink()
    parts = run.root / "cache" / "manifest"
    parts.mkdir(parents=True)
    row = {"task": "catalog", "fingerprint": "f", "kind": "image", "status": "quarantined"}
    rows = 3 * [{**row, "error": "<b>truncated", "source": "a.jpg"}]
    pq.write_table(pa.Table.from_pylist(rows), parts / "merged.parquet")
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;truncated</td><td>3</td>" in content and "a.jpg" in content


def test_long_trainings_are_drawn_with_few_points(run, tmp_path, monkeypatch):
    drawn = dict[str, int]()

    def charts(name: str, panels: list[Panel]) -> str:
        drawn[name] = len(panels[0].lines[0].x)
        return ""

    monkeypatch.setattr(stage, "charts", charts)
    monkeypatch.setattr(stage, "POINTS", 3)
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    assert drawn["events"] == 3  # of six steps


def test_a_run_with_nothing_is_refused(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.open(load_preset("shapes", SMALL))
    with pytest.raises(UserError, match="nothing to show yet"):
        report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_damaged_figures_are_not_shown(run, tmp_path):
    content = bytearray(run.metrics.read_bytes())
    content[len(content) // 2] ^= 1
    run.metrics.write_bytes(content)
    with pytest.raises(DataError, match=r"metrics\.parquet"):
        report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_folder_is_not_replaced(run, tmp_path):
    assert lcm("report", "--run", run.root, "--out", tmp_path).exit_code != 0
    assert run.root.is_dir()
