"""`lcm report` writes one page of what a run has, and nothing where there is nothing."""

import base64
import re
import shutil
from io import BytesIO
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lcm_distill.commands.printing import show_result
from lcm_distill.config import load_file, load_preset
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.evaluation import scored_images
from lcm_distill.evaluation.image_grid import write_grid
from lcm_distill.evaluation.prompt_files import Prompt
from lcm_distill.pipeline.hashed_parquet import encode_table
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.charts import Panel
from lcm_distill.stages import evaluate
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


def test_an_evaluation_says_how_the_page_gets_its_figures(run, capsys):
    for expected in (False, True):
        show_result(evaluate.STAGE, load_file(run.config), run, as_json=False)
        assert (f"lcm report --run {run.root}" in capsys.readouterr().err) is expected
        assert lcm("report", "--run", run.root).exit_code == 0


def test_the_page_has_what_the_run_has(run):
    result = lcm("report", "--run", run.root)
    assert result.exit_code == 0 and "report.html" in result.stderr
    content = (run.root / "report.html").read_text()
    text = " ".join(Text(content).text)
    rows = pq.read_table(run.metrics).to_pylist()
    distances = [row["value"] for row in rows if row["metric"] == "frechet_distance"]
    assert len(distances) > 3 and all(f"{distance:.2f}" in text for distance in distances)
    identities = {row["checkpoint_sha256"][:16] for row in rows if row["checkpoint_sha256"]}
    shown = {*re.findall(r"<td[^>]*>([0-9a-f]{16,})<", content)}
    assert shown > identities and len(shown - identities) == 1 and len(identities) == 2  # the other is the cache's
    assert "6 steps in" in text and "distill.matching.weight" in text and "stand-in" in text
    titles = re.findall(r"<h2>([^<]*)</h2>", content)
    assert titles == [
        "What was run", "Figures", "Images", "Training", "Where time went", "Data", "Configuration", "Provenance"
    ]  # fmt: skip
    assert content.count("<svg") == 3 + 4 and content.count("data:image/png") == 1


def section(content: str, title: str) -> str:
    return content.partition(f"<h2>{title}</h2>")[2].partition("<h2>")[0]


def figures(content: str) -> list[tuple[str, np.ndarray]]:
    """Text and pixels of each image of the galleries in a part of a page."""
    found = re.findall(r'base64,([^"]+)"><figcaption>([^<]*)<', content)
    return [(text, np.asarray(Image.open(BytesIO(base64.b64decode(data))))) for data, text in found]


def test_the_best_and_worst_images_stand_above_their_captions(run, finished_run, tmp_path, monkeypatch):
    shutil.copytree(finished_run.evaluate, run.evaluate)
    monkeypatch.setattr(stage, "EXTREMES", 3)
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    content = section((tmp_path / "page.html").read_text(), "Best and worst images")
    assert "student, 2 steps, guidance 2: of 14 images" in content and "<h3>Best</h3>" in content
    best, worst = (figures(part) for part in content.split("<h3>Worst</h3>"))
    parts = run.evaluate.glob("student-consistency-2-*/shapes-*/manifest/*.parquet")
    scored = pa.concat_tables(pq.read_table(part) for part in sorted(parts))
    rows = sorted(scored.to_pylist(), key=lambda row: (-row["caption_score"], row["image_id"]))
    assert [text for text, _ in best] == [f"{row['caption']}; score {row['caption_score']:.3g}" for row in rows[:3]]
    last = sorted(rows[3:], key=lambda row: (row["caption_score"], row["image_id"]))[:3]
    last = [row for row in last if row["caption_score"] < rows[0]["caption_score"]]
    for (text, pixels), row in zip(worst, last, strict=True):
        assert text == f"{row['caption']}; score {row['caption_score']:.3g}"
        generated = np.asarray(Image.open(run.evaluate / row["picture"]))
        assert (pixels == generated.repeat(2, axis=0).repeat(2, axis=1)).all()


def test_images_as_good_or_as_bad_as_those_that_are_shown_are_counted(run, finished_run, tmp_path, monkeypatch):
    shutil.copytree(finished_run.evaluate, run.evaluate)
    monkeypatch.setattr(stage, "EXTREMES", 3)
    for good, said in {9: [9, 5], 3: [None, 11], 1: [13, None], 14: [14, None]}.items():
        scores = [{"image_id": number, "caption": "of", "caption_score": float(number < good)} for number in range(14)]
        monkeypatch.setattr(scored_images, "_scores", lambda *_, scores=scores: scores)
        report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
        content = section((tmp_path / "page.html").read_text(), "Best and worst images")
        parts = content.split("<h3>Worst</h3>")
        counts = [re.findall(r"<p>(\d+) images have score [01]: the first of them are shown.", part) for part in parts]
        if good == 1:  # the second best is one of the worst
            assert counts == [["13"], ["13"]]
        else:
            assert counts == [[str(count)] if count else [] for count in said[: len(parts)]]
        assert ("<h3>Worst</h3>" in content) == (good < 14)


def validated(run: RunFolder, step: int, shade: int, captions: list[str]) -> None:
    """The grid of a validation: images of one shade a sampling and row."""
    shades = {"teacher, 3 Heun steps": 100, "student, 1 step": shade, "student, 2 steps": shade + 50}
    images = np.arange(len(captions), dtype=np.uint8)[:, None, None, None] + np.zeros((64, 64, 3), np.uint8)
    image_sets = [
        SimpleNamespace(
            sampling=SimpleNamespace(title=title, heading=title, guidance=2),
            config=SimpleNamespace(generation_seed=0),
            checkpoint_sha256="abc",
            images=lambda places, first=first: images[places] + np.uint8(first),
        )
        for title, first in shades.items()
    ]
    place = run.distill / "validation" / f"step-{step:07d}"
    place.mkdir(parents=True)
    prompts = [Prompt(number, caption) for number, caption in enumerate(captions)]
    write_grid(place / "grid.png", cast(Any, [(image_set, "") for image_set in image_sets]), prompts)


def test_images_during_training_stand_in_a_strip_for_each_caption(run, tmp_path):
    captions = ["a red ring", "a <blue> heart", "a mint star", "a square"]
    for step in range(10, 90, 10):
        validated(run, step, step, captions)
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    content = section((tmp_path / "page.html").read_text(), "Images during training")
    assert re.findall("<h3>([^<]*)</h3>", content) == ["a red ring", "a &lt;blue&gt; heart", "a mint star"]
    for row, part in enumerate(content.split("<h3>")[1:]):
        shades = {text: {*pixels.flat} for text, pixels in figures(part)}
        steps = {f"step {step}": {step + row} for step in (10, 30, 50, 60, 80)}
        assert shades == {**steps, "teacher, 3 Heun steps": {100 + row}}
    assert "student, 1 step." in content


def test_a_damaged_validation_is_not_shown(run, tmp_path):
    validated(run, 10, 10, ["a red ring"])
    path = run.distill / "validation" / "step-0000010" / "grid.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"grid\.png is damaged: delete it"):
        report(load_preset("shapes", SMALL), run, tmp_path / "page.html")


def test_validations_of_earlier_versions_are_left_out(run, tmp_path):
    place = run.distill / "validation" / "step-0000010"
    place.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(place / "grid.png")
    report(load_preset("shapes", SMALL), run, tmp_path / "page.html")
    assert "Images during training" not in (tmp_path / "page.html").read_text()


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
