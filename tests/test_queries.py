"""The queries of docs/queries.md return, in DuckDB alone, what the sentences before them promise."""

import re
import subprocess
import sys

import duckdb
import pytest
from PIL import Image

from tests.documents import PAGES, blocks

PAGE = "docs/queries.md"
QUERIES = {
    sentence.replace("\n", " ").rstrip(":"): query
    for sentence, query in re.findall(r"([^\n]+(?:\n[^\n]+)*)\n\n```sql\n(.*?)```", PAGES[PAGE], re.DOTALL)
}
"""By the sentence before them."""


@pytest.fixture
def in_run(finished_run, tmp_path, monkeypatch):
    """A folder in which `runs/shapes` is the finished small run."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "shapes").symlink_to(finished_run.root)
    monkeypatch.chdir(tmp_path)


def rows(beginning: str) -> list[dict]:
    """Rows of the query whose sentence begins so."""
    (query,) = [query for title, query in QUERIES.items() if title.startswith(beginning)]
    found = duckdb.sql(query)
    assert found is not None
    return found.to_arrow_table().to_pylist()


def test_every_query_has_a_sentence():
    assert len(QUERIES) == len(blocks(PAGE, "sql")) > 14


def test_queries_need_only_duckdb(in_run):
    """In a process that has nothing else; only a run without bad records has nothing to say of them."""
    code = (
        "import sys, duckdb\n"
        "print([len(duckdb.sql(query).fetchall()) for query in sys.argv[1:]])\n"
        "assert not any(name.startswith('lcm_distill') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *QUERIES.values()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = dict(zip(QUERIES, map(int, re.findall(r"\d+", done.stdout)), strict=True))
    assert [title for title, count in rows.items() if count == 0] == ["What was left out, and why"]


def test_quarantined_records_have_their_reason(tmp_path, monkeypatch):
    folder = tmp_path / "runs/shapes/cache/manifest"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    duckdb.sql(
        "COPY (FROM (VALUES ('image', 'ok', NULL, 'a'), ('image', 'quarantined', 'missing file', 'c'),"
        " ('image', 'quarantined', 'missing file', 'b')) AS t(kind, status, error, source))"
        f" TO '{folder}/part.parquet'"
    )
    assert rows("What was left out") == [{"kind": "image", "error": "missing file", "records": 2, "for_example": "b"}]


def test_data(in_run, finished_run):
    (counts,) = rows("How many distinct captions")
    assert counts["images"] == 72 and 1 <= counts["images_per_caption"] <= counts["most"]
    assert sum(row["images"] for row in rows("How large training")) == 72
    assert rows("Sizes of the images in") == [{"width": 64, "height": 64, "images": 72, "aspect": 1.0}]
    for row in rows("What each field takes"):
        files = [path for path in (finished_run.cache / row["field"] / "c").rglob("*") if path.is_file()]
        assert (row["shards"], row["bytes"]) == (len(files), sum(path.stat().st_size for path in files))


def test_training(in_run):
    assert [row["from_step"] for row in rows("Loss by hundred")] == [0]
    outliers = rows("Steps whose gradient")
    assert len(outliers) == 6 and outliers[0]["gradient_norm"] == max(row["gradient_norm"] for row in outliers)


def test_figures(in_run, finished_run):
    samplings = {(row["model"], row["steps"]): row for row in rows("Teacher beside student")}
    assert set(samplings) == {("teacher", 3), ("teacher", 2), ("student", 1), ("student", 2)}
    missed = {row["folder"]: row for row in rows("How often each sampling")}
    for (model, steps), row in samplings.items():
        (counts,) = [count for folder, count in missed.items() if re.match(rf"{model}-\w+-{steps}-", folder)]
        assert counts["images"] == 14
        assert row["caption_accuracy"] == pytest.approx(1 - counts["missed"] / counts["images"], abs=6e-4)
    first = rows("Images that do not show")[0]
    with Image.open(finished_run.evaluate / first["picture"]) as image:
        assert image.size == (64, 64)
    for row in rows("Disk space and time"):
        files = list((finished_run.evaluate / row["folder"]).rglob("*.png"))
        assert (row["images"], row["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert {row["commit"] for row in rows("Where a figure")} and len(rows("Where a figure")) == 11
