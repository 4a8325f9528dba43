"""A result's charts: a file each, and none of an earlier write that it has no more."""

import shutil

import pyarrow as pa
from matplotlib.figure import Figure
from PIL import Image

from lcm_distill.report.charts import Line, Panel
from lcm_distill.report.write_up import write_up


def panel(name: str) -> Panel:
    return Panel("x", "y", [Line([1, 2], [1, 2], [0, 0], 0, "line")], title="title", name=name)


def written(stem, *names: str) -> list[str]:
    charts = write_up(stem, pa.table({"value": [1]}), "text", [panel(name) for name in names], ())
    return [path.name for path in charts]


def test_a_panel_is_a_file_as_wide_as_a_page(tmp_path):
    assert written(tmp_path / "both.png", "distance", "") == ["both-distance.png", "both.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"both-distance.png", "both.png", "both.md", "both.parquet"}
    with Image.open(tmp_path / "both-distance.png") as chart:
        assert chart.width == 832 and chart.info["Source"] == "both"


def test_charts_of_an_earlier_write_go_and_others_files_stay(tmp_path):
    Figure().savefig(tmp_path / "cmp.png")  # as an earlier version wrote it
    Figure().savefig(tmp_path / "cmp-mine.png")
    (tmp_path / "cmp-broken.png").write_bytes(b"no image")
    others = {"cmp-mine.png", "cmp-broken.png", *written(tmp_path / "cmp-a", "distance")}
    written(tmp_path / "cmp", "distance", "accuracy")
    copy = shutil.copy(tmp_path / "cmp-distance.png", tmp_path / "cmp-distance-in-may.png")
    others.add(copy.name)
    written(tmp_path / "cmp", "accuracy")
    assert {path.name for path in tmp_path.glob("*.png")} == {"cmp-accuracy.png", *others}
