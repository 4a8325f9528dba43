"""`lcm report` writes one page of what a run has, and nothing where there is nothing."""

import re
import shutil
from itertools import product

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.config import load_preset
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.charts import Panel
from lcm_distill.stages import report as stage
from lcm_distill.stages.report import report
from lcm_distill.training.events import EVENTS
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
    assert content.count("<svg") == 3 + 4 and content.count("data:image/png") == 1


def test_the_page_is_the_same_each_time(run, tmp_path):
    pages = [tmp_path / f"{number}.html" for number in range(2)]
    for page in pages:
        lcm("report", "--run", run.root, "--out", page)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_cache_that_is_missing_is_said_to_be(run):
    """Of a trained run; one that measured a student from elsewhere never had a cache."""
    (run.root / "cache").unlink()
    assert lcm("report", "--run", run.root).exit_code == 0
    content = (run.root / "report.html").read_text()
    data = content.partition("<h2>Data</h2>")[2].partition("<h2>")[0]
    assert f"The cache is missing: {run.root / 'cache'} holds no manifest." in " ".join(Text(data).text)
    shutil.rmtree(run.distill)
    assert lcm("report", "--run", run.root).exit_code == 0
    text = " ".join(Text((run.root / "report.html").read_text()).text)
    assert f"There is no cache at {run.root / 'cache'}." in text and "cache is missing" not in text


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


@pytest.mark.parametrize("terms", [True, False])
def test_the_terms_of_the_loss_are_drawn_where_they_are_recorded(run, tmp_path, monkeypatch, terms):
    drawn = dict[str, list[str]]()

    def charts(name: str, panels: list[Panel]) -> str:
        drawn[name] = [panel.y_label for panel in panels]
        return ""

    monkeypatch.setattr(stage, "charts", charts)
    for path in (run.distill / "events").iterdir():
        table = pq.read_table(path).drop_columns([name for name in EVENTS.names if name.endswith("_loss")])
        if terms:
            table = table.append_column("critic_loss", pa.array([0.5] * len(table)))
        path.write_bytes(encode_table(table))
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    assert ("loss: critic" in drawn["events"]) == terms and len(drawn["events"]) == 4 + terms


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


@pytest.mark.parametrize("content", ["{", "[1]", '{"packages": 3}'])
def test_a_damaged_record_of_the_environment_is_left_out(run, content):
    run.environment.write_text(content)
    assert lcm("report", "--run", run.root).exit_code == 0
    assert "<th>release</th>" not in (run.root / "report.html").read_text()


def test_a_damaged_grid_is_not_shown(run, tmp_path):
    run.grid.write_bytes(run.grid.read_bytes()[:500])
    with pytest.raises(DataError, match=r"grid\.png is damaged"):
        report(load_preset("shapes", SMALL), run, tmp_path / "page.html")


def test_students_of_two_checkpoints_have_lines_of_their_own(run, tmp_path, monkeypatch):
    rows = pq.read_table(run.metrics)
    sha256 = rows.column("checkpoint_sha256").to_pylist()
    other = pa.array([None if one is None else one[::-1] for one in sha256])
    added = rows.set_column(rows.schema.get_field_index("checkpoint_sha256"), "checkpoint_sha256", other)
    run.metrics.write_bytes(encode_table(pa.concat_tables([rows, added])))
    labels = list[str | None]()
    monkeypatch.setattr(
        stage, "charts", lambda name, panels: labels.extend(line.label for line in panels[0].lines) or ""
    )
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    students = [label for label in labels if label and label.startswith("student")]
    assert len(set(students)) == 2 and all(", checkpoint " in label for label in students)


@pytest.mark.parametrize(
    ("command", "name"),
    [*product(["report", "sample", "export"], ["config.toml", "metrics.parquet", "student.safetensors"]),
     ("compare", "metrics.parquet")],
)  # fmt: skip
def test_no_result_takes_the_place_of_what_a_run_lives_by(run, command, name):
    before = (run.root / name).read_bytes()
    words = {
        "report": ["--run", run.root],
        "compare": [run.root],
        "sample": ["a red circle", "--run", run.root, "--steps", 1],
        "export": ["--run", run.root, "--format", "pt"],
    }
    out = run.root / name
    result = lcm(command, *words[command], "--out", out.with_suffix("") if command == "compare" else out)
    assert result.exit_code == 2 and "is a file of the run" in result.stderr
    assert (run.root / name).read_bytes() == before
