"""A line that names an image accounts for it, also where the line cannot be used: once, under the image's name."""

import json

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.data.survey import survey
from tests.data.test_sources import source_of
from tests.foreign import encode, image_bytes, images_in_manifest, images_on_disk, write_image

CSV = b'''file_name,text
0.jpg,"a, ""b"""
1.jpg,
2.jpg,x,y
3.jpg
4.jpg,"open
nowhere.jpg,
6.jpg,fine
,nameless
nor this,x,y
'''
JSON = b"""{"file_name": "0.jpg", "text": "fine"}
{"file_name": "1.jpg", "text": " "}
{"text": "caf\xe9", "file_name": "2.jpg"}
{"file_name": "3.jpg", "text": "cut
{"file_name": "4.jpg" "text": "no comma"}
{"file_name": "nowhere.jpg"}
{"file_name": "6.jpg", "text": "fine"}
{"text": "nameless"}
{"file_name": "nor this", broken}
"""


def noted(run):
    """Status, note and error of each image and record that was rejected or left out, by source."""
    query = "SELECT source, kind, status, note, error FROM read_parquet(?, union_by_name=true) WHERE kind <> 'catalog'"
    rows = duckdb.execute(f"{query} AND kind <> 'caption' ORDER BY source", [f"{run}/cache/manifest/*.parquet"])
    return {source: (kind, status, note, error or "") for source, kind, status, note, error in rows.fetchall()}


def accounts(form, root, run, file, place=""):
    """Seven images, one of a missing line: each once, by name; the lines of those that cannot be used are noted."""
    _, rows = encode(root, run, form)
    names = {f"{place}{n}.jpg" for n in range(7)}
    assert images_in_manifest(run) == names and images_on_disk(root) == 7
    assert survey(source_of(form, root), 16)["images"] == 7
    found = noted(run)
    assert len(found) == len(rows)  # nothing twice
    assert {name: status for name, (_, status, *_) in found.items() if name in names} == {
        f"{place}{n}.jpg": "ok" if n in (0, 6) else "left out" if n == 5 else "quarantined" for n in range(7)
    }
    lines = {n: found[f"{place}{n}.jpg"][2] for n in (1, 2, 3, 4)}
    assert lines == {n: f"{file}:{n + 1 + file.endswith('.csv')}" for n in lines}
    kind, _, _, error = found[f"{place}nowhere.jpg"]
    assert kind == "annotation" and error.startswith("missing file; malformed annotation: no ")
    others = [name for name, (kind, *_) in found.items() if kind == "record"]
    assert others == sorted(f"{file}:{line + file.endswith('.csv')}" for line in (8, 9))


@pytest.mark.parametrize(("name", "content"), [("metadata.csv", CSV), ("metadata.jsonl", JSON)])
def test_lines_of_metadata(name, content, tmp_path):
    root = tmp_path / "data"
    for n in range(7):
        write_image(root / f"{n}.jpg", image_bytes(n))
    (root / name).write_bytes(content)
    accounts("folder", root, tmp_path / "run", name)


def test_lines_of_journeydb(tmp_path):
    root = tmp_path / "data"
    for n in range(7):
        write_image(root / IMAGES / "000" / f"{n}.jpg", image_bytes(n))
    content = JSON.replace(b'"file_name": "', b'"img_path": "./000/').replace(b'"text"', b'"prompt"')
    (root / ANNOTATIONS).write_bytes(content.replace(b"./000/nor this", b"nor this"))
    accounts("journeydb", root, tmp_path / "run", ANNOTATIONS, f"{IMAGES}/000/")


def test_a_row_of_metadata_in_parquet_that_is_not_text(tmp_path):
    root = tmp_path / "data"
    for n in range(2):
        write_image(root / f"{n}.jpg", image_bytes(n))
    texts = pa.array([b"caf\xe9", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"file_name": ["0.jpg", "1.jpg"], "text": texts}), root / "metadata.parquet")
    encode(root, tmp_path / "run", "folder")
    kind, status, note, error = noted(tmp_path / "run")["0.jpg"]
    assert (kind, status, note) == ("annotation", "quarantined", "metadata.parquet:1") and "0xe9" in error
    assert images_in_manifest(tmp_path / "run") == {"0.jpg", "1.jpg"}


def test_the_first_line_of_an_image_counts_and_a_broken_one_takes_none_that_another_names(tmp_path):
    root = tmp_path / "data"
    write_image(root / "0.jpg", image_bytes(0))
    (root / "metadata.csv").write_text("file_name,text\n0.jpg,fine\n0.jpg,x,y\n")
    _, rows = encode(root, tmp_path / "run", "folder")
    assert [(source, status) for source, status, _ in rows] == [("0.jpg", "ok"), ("metadata.csv:3", "quarantined")]


def test_rows_of_parquet_without_an_image_are_no_images(tmp_path):
    """Whether their caption can be used or not."""
    root = tmp_path / "data"
    root.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [(image_bytes(0), "0.jpg"), (None, "gone.jpg"), (image_bytes(2), None), (None, None), (None, "beside.jpg")]
    table = pa.table({
        "image": pa.array([{"bytes": content, "path": path} for content, path in images], kind),
        "caption": ["a", "b", " ", None, " "],
    })  # fmt: skip
    pq.write_table(table, root / "0.parquet", row_group_size=2)
    pq.write_table(pa.table({"image": [None, image_bytes(1)], "caption": [None, None]}), root / "1.parquet")
    write_image(root / "beside.jpg", image_bytes(9))
    encode(root, tmp_path / "run", "parquet")
    assert images_in_manifest(tmp_path / "run") == {"0.parquet/0", "0.parquet/2", "0.parquet/4", "1.parquet/1"}
    found = noted(tmp_path / "run")
    assert found["0.parquet/1"][3] == "missing file"
    assert found["0.parquet/3"][3] == "missing file; malformed annotation: no caption"
    assert found["0.parquet/4"][3] == "malformed annotation: no caption"


def test_an_image_of_coco_without_an_identifier(tmp_path):
    root = tmp_path / "data"
    write_image(root / "val" / "0.jpg", image_bytes(0))
    write_image(root / "val" / "2.jpg", image_bytes(2))
    images = [{"file_name": "0.jpg"}, {"id": 1}, {"id": 2, "file_name": "2.jpg"}]
    content = {"images": images, "annotations": [{"id": 1, "image_id": 2, "caption": "two"}]}
    (root / "captions_val.json").write_text(json.dumps(content))
    encode(root, tmp_path / "run", "coco")
    assert noted(tmp_path / "run") == {
        "val/2.jpg": ("image", "ok", None, ""),
        "captions_val.json: image 1": ("record", "quarantined", None, "malformed annotation: no file_name"),
        "val/0.jpg": (
            "annotation",
            "quarantined",
            "captions_val.json: image at place 0",
            "malformed annotation: no id",
        ),
    }
