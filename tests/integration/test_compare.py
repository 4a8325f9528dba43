"""Figures of several runs side by side."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.evaluation.metric_rows import METRICS, merged_metrics
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm


@pytest.fixture
def runs(finished_run, tmp_path, monkeypatch):
    """Folder `a` is the finished run; `b` has another student, measured beside the same teacher at guidance 3."""
    monkeypatch.chdir(tmp_path)
    rows = pq.read_table(finished_run.metrics).to_pylist()
    others = [row for row in rows if row["model"] != "student"] + [
        {**row, "checkpoint_sha256": "b" * 64, "guidance": 3.0, "value": row["value"] / 2}
        for row in rows if row["model"] == "student"
    ]  # fmt: skip
    for name, content in (("a", rows), ("b", others)):
        run = RunFolder(tmp_path / name)
        run.root.mkdir()
        shutil.copy(finished_run.config, run.config)
        pq.write_table(pa.Table.from_pylist(content, schema=METRICS), run.metrics)
    return rows


def test_the_teacher_stands_once_above_the_students(runs):
    result = lcm("compare", "a", "b", "--out", "both")
    assert result.exit_code == 0, result.output
    rows = pq.read_table("both.parquet").to_pylist()
    assert [row["run"] for row in rows] == [None] * 4 + ["a"] * 6 + ["b"] * 6 + [None]
    assert [row["model"] for row in rows[:4]] == ["teacher"] * 4 and rows[-1]["model"] == "real"
    stripped = [{name: row[name] for name in METRICS.names} for row in rows if row["run"] != "b"]
    assert stripped == runs
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line]
    assert lines[0] == ["run", "model", "sampler", "steps", "guidance", "Fréchet distance", "caption accuracy",
                        "distance to teacher", "network evaluations", "seconds per image", "warning"]  # fmt: skip
    (halved,) = [line for line in lines if line[:5] == ["b", "student", "consistency", "1", "3"]]
    one_step = next(row["value"] for row in runs if row["model"] == "student")
    assert halved[5] == f"{one_step / 2:.2f}" and len(lines) == 2 + 2 + 2 + 2 + 1
    assert "shapes: stand-in data" in result.stdout and "14 held-out captions, seed 0" in result.stdout
    assert Path("both-frechet-distance.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_without_dtypes_is_of_float32(runs):
    table = pq.read_table("a/metrics.parquet")
    pq.write_table(table.drop_columns(["dtype"]), "a/metrics.parquet")
    assert lcm("compare", "a", "--out", "old").exit_code == 0
    assert pq.read_table("old.parquet").drop_columns(["run"]).to_pylist() == runs
    assert {row["dtype"] for row in runs} == {"float32", None}
    assert merged_metrics(RunFolder(Path("a")).metrics, runs).to_pylist() == runs


def test_figures_of_other_captions_stand_in_a_table_of_their_own(runs):
    table = pq.read_table("b/metrics.parquet").to_pylist()
    rows = [{**row, "prompts": "other.csv:1234", "images": 99} for row in table if row["model"] == "student"]
    pq.write_table(pa.Table.from_pylist(rows, schema=METRICS), "b/metrics.parquet")
    text = lcm("compare", "a", "b").stdout
    _, first, second = text.split("## ")
    assert "teacher" in first and "No teacher was measured" not in first
    assert second.startswith("99 captions of other.csv, seed 0") and "lcm evaluate --models teacher" in second


def test_a_run_without_figures_is_named_where_others_have_some(runs):
    shutil.copytree("a", "bare")
    pq.write_table(METRICS.empty_table(), "bare/metrics.parquet")
    with pytest.warns(UserWarning, match=r"^bare has no figures: `lcm evaluate --run bare` makes them$"):
        result = lcm("compare", "a", "bare", "--out", "both")
    assert result.exit_code == 0, result.output
    assert {row["run"] for row in pq.read_table("both.parquet").to_pylist()} == {None, "a"}
    assert Path("both.md").read_text().endswith("\n\nbare has no figures: `lcm evaluate --run bare` makes them\n")


def test_what_keeps_a_run_without_figures_is_said(runs):
    shutil.copytree("a", "bare")
    pq.write_table(METRICS.empty_table(), "bare/metrics.parquet")
    Path("own.txt").write_text("my house\n" * 99)
    config = Path("bare/config.toml")
    config.write_text(config.read_text().replace('prompts = "held-out"', f'prompts = "{Path("own.txt").resolve()}"'))
    with pytest.warns(UserWarning, match=r"^bare has no figures: shapes cannot measure caption 'my house', which "
                      r".*: set evaluate\.protocols to others for `lcm evaluate --run bare`$"):  # fmt: skip
        assert lcm("compare", "a", "bare", "--out", "both").exit_code == 0


@pytest.mark.parametrize("out", ["both", "both.png"])
def test_the_files_are_named_that_are_written(runs, out):
    result = lcm("compare", "a", "--out", out)
    assert result.exit_code == 0, result.output
    charts = [f"both-{figure}.png" for figure in ("caption-accuracy", "distance-to-teacher", "frechet-distance")]
    assert f"charts and rows: {', '.join(charts)}, both.parquet" in result.stderr
    assert {path.name for path in Path().glob("both*")} == {*charts, "both.md", "both.parquet"}


def test_a_folder_where_a_chart_goes_is_refused_before_anything_is_written(runs):
    Path("both-caption-accuracy.png").mkdir()
    assert lcm("compare", "a", "--out", "both").exit_code == 4
    assert [path.name for path in Path().glob("both*")] == ["both-caption-accuracy.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "nowhere"], "nowhere does not exist: give folders of runs"),
        (["a", "./a"], "a run is named twice"),
        (["a", "old"], "old/metrics.parquet is of an older version"),
        (["bare"], "bare holds no figure: set evaluate.protocols"),
    ],
)
def test_wrong_runs_are_one_line(runs, arguments, message):
    for name, schema in (("old", pa.schema([("model", pa.string())])), ("bare", METRICS)):
        shutil.copytree("a", name)
        pq.write_table(schema.empty_table(), f"{name}/metrics.parquet")
    result = lcm("compare", *arguments)
    assert result.exit_code == 2 and message in result.stderr.strip().splitlines()[-1]
