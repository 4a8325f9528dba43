"""The report's section on where time went has what the stages recorded."""

import os
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill import assets
from lcm_distill.config import load_preset
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.encoding_rate import encoding_times
from lcm_distill.models.checkpoint_description import read_description_and_hash
from lcm_distill.pipeline.compaction import compact
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.units import format_duration
from lcm_distill.stages.report import report
from lcm_distill.stages.status import status
from lcm_distill.training.events import EVENTS
from tests.conftest import SMALL
from tests.runs import borrow


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """A finished run whose files may change."""
    return borrow(finished_run, tmp_path / "run", "config.toml", "metrics.parquet", "distill", "cache")


def cells(content: str) -> list[list[str]]:
    """Text of each line of the section's table, below its heading."""
    content = content.partition("<h2>Where time went</h2>")[2].partition("<h2>")[0]
    return [re.findall(r"<td[^>]*>([^<]*)<", line) for line in re.findall("<tr>(.*?)</tr>", content)[1:]]


def dated_before(run: RunFolder, when: float) -> None:
    """Give all shards the date of work that ends then."""
    for path in run.cache.glob("*/c/**/*"):
        os.utime(path, (when - 1, when - 1))


def test_where_time_went_is_what_the_stages_recorded(run, tmp_path):
    """Encoding by the times of its parts, training by its steps, images by their own seconds."""
    when = 1e9
    parts = {"catalog": 0.0, "text": 3.0, "latents_64": 5.0}
    for kind, seconds in parts.items():
        for path in sorted((run.cache / "manifest").glob(f"{kind}*.parquet")):
            when += seconds
            os.utime(path, (when, when))
    dated_before(run, when)
    captions, images = (len(list((run.cache / "manifest").glob(f"{kind}-*"))) for kind in ("text", "latents_64"))
    steps = [{"step": step, "seconds": 2.0, "images_per_second": 8.0} for step in range(5)]
    for path in (run.distill / "events").iterdir():
        path.unlink()
    table = pa.Table.from_pylist(steps, schema=EVENTS)
    (run.distill / "events" / "from-0000000.parquet").write_bytes(encode_table(table))
    rows = pq.read_table(run.metrics).to_pylist()
    measured = {(row["model"], row["steps"]): row for row in rows if row["seconds_per_image"]}

    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    first, second, third, *generated = cells((tmp_path / "page.html").read_text())
    spent = [3.0 * captions, 5.0 * images, 10.0]
    own = [row["images"] * row["seconds_per_image"] for row in measured.values()]
    whole = sum(spent) + sum(own)
    counts = [pq.read_table(run.cache / "catalog" / f"{name}.parquet").num_rows for name in ("captions", "samples")]
    counts.append(80)
    for line, seconds, count in zip((first, second, third), spent, counts, strict=True):
        assert line[2:] == [format_duration(seconds), f"{seconds / whole:.1%}", f"{count:,}", f"{count / seconds:,.1f}"]
    assert [line[:2] for line in (first, second, third)] == [
        ["precompute", "captions"], ["precompute", "images"], ["distill", "5 steps"]
    ]  # fmt: skip
    assert len(generated) == len(measured) > 1 and {line[0] for line in generated} == {"evaluate"}
    assert [line[2] for line in generated] == list(map(format_duration, own))


@pytest.mark.parametrize("merged", [False, True])
def test_what_a_stage_did_not_record_is_left_out(run, tmp_path, merged):
    """Records of earlier versions have no rates, and merged parts no times."""
    for path in (run.distill / "events").iterdir():
        path.write_bytes(encode_table(pa.table({"step": [0, 1], "loss": [1.0, 2.0], "seconds": [1.0, 1.0],
                                                "images_per_second": pa.nulls(2, pa.float64())})))  # fmt: skip
    if merged:
        list(compact(Cache.local(load_preset("shapes", SMALL), run).manifest))
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    stages = {line[0] for line in cells((tmp_path / "page.html").read_text())}
    assert stages == ({"evaluate"} if merged else {"precompute", "evaluate"})


@pytest.mark.parametrize("first", ["manifest", "latents_64"])
def test_a_run_that_was_copied_without_dates_has_no_time_of_encoding(run, tmp_path, first):
    """As by `cp -r`, which copies one folder after another, in any order."""
    folders = sorted((path for path in run.cache.iterdir() if path.is_dir()), key=lambda path: path.name != first)
    for when, folder in enumerate(folders):
        for path in folder.rglob("*"):
            os.utime(path, (1e9 + when, 1e9 + when))
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    assert {line[0] for line in cells((tmp_path / "page.html").read_text())} == {"distill", "evaluate"}
    assert status(load_preset("shapes", SMALL), run)["precompute"]["rows_per_second"] is None


def test_of_a_cache_that_was_extended_the_time_since_then_is_given(run):
    """The catalog is committed again; when the work before it began is not known."""
    manifest = Cache.local(load_preset("shapes", SMALL), run).manifest
    os.utime(run.cache / "manifest/catalog.parquet", (1e9, 1e9))
    for path in (run.cache / "manifest").glob("[!c]*.parquet"):
        os.utime(path, (9e8, 9e8))
    os.utime(run.cache / "manifest/latents_64-00001.parquet", (1e9 + 4, 1e9 + 4))
    dated_before(run, 1e9 + 3)
    rows = len(pq.read_table(run.cache / "manifest/latents_64-00001.parquet"))
    assert encoding_times(manifest) == {"images": (rows, 4.0)}


def test_images_that_nothing_was_measured_of_count_as_well(finished_run, tmp_path):
    """As `--images-only` leaves them: no figures, and no features beside the images."""
    run = borrow(finished_run, tmp_path / "run", "config.toml", "evaluate", "student.safetensors", linked=["cache"])
    sets = sorted(path.parent for path in run.evaluate.glob("*/manifest"))
    for folder in sets:
        for features in folder.glob("*/manifest"):
            shutil.rmtree(features)
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text()
    generated = [line for line in cells(content) if line[0] == "evaluate"]
    spent = [pq.read_table(folder / "manifest").column("seconds").to_pylist() for folder in sets]
    assert [line[2] for line in generated] == [format_duration(sum(seconds)) for seconds in spent]
    assert {line[4] for line in generated} == {"14"} and "teacher, 3 Heun steps" in {line[1] for line in generated}
    shown = re.findall(r"<td[^>]*>([0-9a-f]{16}|not recorded)<", content)
    hashes = [read_description_and_hash(path)[1] or "not recorded" for path in (assets.TEACHER, run.student)]
    assert shown == [*(found[:16] for found in hashes), shown[-1]] and len(shown) == 3
