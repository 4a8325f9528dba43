"""COCO's layout: where its images may be, and what becomes of a file of captions that is none."""

import json
from pathlib import Path

import pytest

from lcm_distill.core.errors import UserError
from lcm_distill.data.sources.interface import BadAnnotation, LeftOut
from lcm_distill.data.sources.journeydb import ANNOTATIONS
from tests.command_line import lcm
from tests.data.test_source_formats import contents_of, records_of
from tests.data.test_sources import source_of
from tests.foreign import Item, Zeros, image_bytes, pack, write_image


def tree(run: Path) -> dict[str, bytes]:
    """The files of a run but logs and locks."""
    files = (path for path in run.rglob("*") if path.is_file() and not {"logs", "locks"} & {*path.parts})
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.mark.parametrize("place", ["val", "images/val", "images", "annotations", "."])
def test_coco_with_its_images_in_any_usual_place(tmp_path, place):
    (tmp_path / "annotations").mkdir()
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(3)]
    captions = [(0, None), (0, "  "), (0, "third"), (1, 7), (2, None), (2, "second"), (9, "of no image")]
    records = [{"id": n, "image_id": image, "caption": caption} for n, (image, caption) in enumerate(captions)]
    content = {"images": [*images, {"id": 5}, "junk"], "annotations": [*records, None]}
    (tmp_path / "annotations" / "captions_val.json").write_text(json.dumps(content))
    for n in range(3):
        write_image(tmp_path / place / f"{n}.jpg", image_bytes(n))
    name = "" if place == "." else f"{place}/"
    found = records_of("coco", tmp_path)
    assert {path: found[path] for path in (f"{name}0.jpg", f"{name}1.jpg", f"{name}2.jpg")} == {
        f"{name}0.jpg": "third", f"{name}1.jpg": "bad: malformed annotation: no caption", f"{name}2.jpg": "second"
    }  # fmt: skip
    assert len(found) == 7 and contents_of("coco", tmp_path)[f"{name}0.jpg"] == image_bytes(0)


VALUES = {"null": None, "a list": [1], "a text": "x", "a number": 5, "true": True, "an object": {"a": None}}


@pytest.mark.parametrize("kind", VALUES)
def test_a_caption_file_with_a_value_of_another_kind_says_which(tmp_path, kind):
    write_image(tmp_path / "0.jpg", image_bytes(0))
    file, whole = tmp_path / "captions_val.json", {"images": [], "annotations": []}
    remedy = "download it again, or move it away to go without its images"
    for key in whole:
        file.write_text(json.dumps({**whole, key: VALUES[kind]}))
        if kind != "a list":
            with pytest.raises(UserError) as raised:
                list(source_of("coco", tmp_path).annotations())
            reason = f"its '{key}' is {kind}, not a list"
            assert str(raised.value) == f"{file} is not a file of COCO captions: {reason}: {remedy}"
    file.write_text(json.dumps(VALUES[kind]))
    with pytest.raises(UserError) as raised:
        list(source_of("coco", tmp_path).annotations())
    reason = "it has no 'images'" if kind == "an object" else f"not a JSON object but {kind}"
    assert str(raised.value) == f"{file} is not a file of COCO captions: {reason}: {remedy}"


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("form", ["coco", "folder", "journeydb"])
def test_a_record_or_name_of_another_kind_says_which(tmp_path, form, kind):
    value, field = VALUES[kind], "img_path" if form == "journeydb" else "file_name"
    write_image(tmp_path / "0.jpg", image_bytes(0))
    records = [value, {field: value, "id": 1, "text": "c", "prompt": "c"}]
    file = tmp_path / {"coco": "captions_val.json", "folder": "metadata.jsonl", "journeydb": ANNOTATIONS}[form]
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(map(json.dumps, records))
    file.write_text(json.dumps({"images": records, "annotations": []}) if form == "coco" else lines)
    bad = [record.error for record in source_of(form, tmp_path).annotations() if isinstance(record, BadAnnotation)]
    whole = f"no {field}" if form == "coco" or kind == "an object" else f"not a JSON object but {kind}"
    name = f"no {field}" if kind == "null" else f"{field} is {kind}, not a text"
    expected = [whole] if kind == "a text" and form != "coco" else [whole, "no caption" if kind == "a text" else name]
    assert bad == [f"malformed annotation: {reason}" for reason in expected]


@pytest.mark.parametrize("spoilt", ["cut", "latin", "list", "lacks", "number", "empty"])
def test_a_caption_file_of_coco_that_is_none_is_named_and_changes_nothing(tmp_path, monkeypatch, spoilt):
    monkeypatch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Zeros)
    root, run = tmp_path / "coco", tmp_path / "run"
    pack([Item(f"{n}.jpg", image_bytes(n), f'"caption {n}"') for n in range(3)], root, "coco")
    file = root / "annotations" / "captions_val.json"
    options = ["--preset", "shapes", "--set", "data.source=coco", "--set", f"data.root={root}"]
    assert lcm("precompute", *options, "--run", run).exit_code == 0
    whole, before = file.read_bytes(), tree(run)
    file.write_bytes({
        "cut": whole[:-9], "latin": whole.replace(b"caption 1", b"caf\xe9"), "list": b"[1]", "lacks": b'{"images": []}',
        "number": b'{"images": [], "annotations": 3}', "empty": b"",
    }[spoilt])  # fmt: skip
    for folder, dry in ((run, []), (tmp_path / "new", []), (run, ["--dry-run"]), (tmp_path / "new", ["--dry-run"])):
        ended = lcm("precompute", *options, "--run", folder, *dry)
        *notice, line = ended.stderr.splitlines()
        assert ended.exit_code == 2 and len(notice) <= 1, ended.stderr
        assert line.startswith(f"lcm: {file} is not a file of COCO captions: ")
        assert line.endswith("download it again, or move it away to go without its images")
    assert tree(run) == before and not tree(tmp_path / "new")
    file.write_bytes(whole)
    assert lcm("precompute", *options, "--run", tmp_path / "new").exit_code == 0


def test_an_image_counts_once_whatever_its_ids_and_true_is_no_id(tmp_path):
    """Two records of one file could stand in training and among held-out captions; JSON's true equals 1 in Python."""
    images = [(1, "1.jpg"), (2, "1.jpg"), (0, "0.jpg"), (0, "1.jpg"), (True, "t.jpg")]
    captions = [{"id": n, "image_id": n, "caption": f"of {n}"} for n in range(3)]
    captions.append({"id": 3, "image_id": True, "caption": "of true"})
    content = {"images": [{"id": number, "file_name": name} for number, name in images], "annotations": captions}
    (tmp_path / "captions_val.json").write_text(json.dumps(content))
    again = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": captions[:2]}
    (tmp_path / "captions_val2.json").write_text(json.dumps(again))
    for name in ("0.jpg", "1.jpg", "t.jpg"):
        write_image(tmp_path / name, image_bytes(0))
    rows = [row for row in source_of("coco", tmp_path).annotations() if not isinstance(row, LeftOut)]
    assert [(row.path, row.caption) for row in rows if not isinstance(row, BadAnnotation)] == [
        ("1.jpg", "of 1"), ("0.jpg", "of 0")
    ]  # fmt: skip
    assert [(row.image, row.error) for row in rows if isinstance(row, BadAnnotation)] == [
        ("1.jpg", "duplicate image"), ("1.jpg", "duplicate image"), ("t.jpg", "malformed annotation: no id"),
        ("1.jpg", "duplicate image"),
    ]  # fmt: skip


def test_a_record_without_an_id_is_named_by_its_place(tmp_path):
    """Places count from 0, of captions as well; what is no number and no text is no id."""
    for name in ("0.jpg", "1.jpg"):
        write_image(tmp_path / name, image_bytes(0))
    images = [{"id": 7, "file_name": "0.jpg"}, {}, {"id": None}, {"id": True}, {"id": [1]}, {"id": "x"}]
    images += [{"file_name": "1.jpg"}, {"file_name": "1.jpg"}, {"id": 7, "file_name": "0.jpg"}]
    captions = [{"id": 1, "image_id": 7, "caption": "one"}, {"id": 4}, {"id": None}, {}]
    (tmp_path / "captions_val.json").write_text(json.dumps({"images": images, "annotations": captions}))
    found = list(source_of("coco", tmp_path).annotations())
    bad = [(it.source, it.error) for it in found if isinstance(it, BadAnnotation)]
    called = ["at place 1", "at place 2", "at place 3", "at place 4", "x"]
    assert bad == [
        *((f"captions_val.json: image {name}", "malformed annotation: no file_name") for name in called),
        ("captions_val.json: image at place 6", "malformed annotation: no id"),
        ("1.jpg", "duplicate image"), ("0.jpg", "duplicate image"),
    ]  # fmt: skip
    lone = [it.source for it in found if isinstance(it, LeftOut)]
    assert lone == [f"captions_val.json: caption {name}" for name in ("4", "at place 2", "at place 3")]
