"""Records that name what is no file: a folder, or a path that no file can have. None of them is an image on disk."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.data.sources.journeydb import ANNOTATIONS
from lcm_distill.data.survey import survey
from tests.data.test_sources import source_of
from tests.foreign import SOURCE_OF, Item, encode, image_bytes, images_in_manifest, pack, write_image

NAMES = {
    ".": "missing file",
    "folder.png": "missing file",
    "ok.png/x.png": "missing file",
    f"{'x' * 300}/{'x' * 300}.png": "missing file",
    "a\0.png": "missing file; malformed annotation: ",
    "\ud800.png": "missing file; malformed annotation: ",
    "../../../../../up.png": "leaves",
    "": "no ",
}
"""What the reason of a record begins with that names this, or has in it."""


def write_records(root, form):
    """A data set with the image `ok.png`, and a record for each of `NAMES`; the folder that names are relative to."""
    pack([Item("ok.png", image_bytes(0, "PNG"), '"c"')], root, form)
    if form == "coco":
        images = [{"id": n, "file_name": name} for n, name in enumerate(["ok.png", *NAMES])]
        captions = [{"id": n, "image_id": n, "caption": "c"} for n in range(len(images))]
        (root / "annotations/captions_val.json").write_text(json.dumps({"images": images, "annotations": captions}))
    if form == "parquet":
        names = [name.encode("utf-8", "replace").decode() for name in NAMES]
        images = [{"bytes": image_bytes(0, "PNG"), "path": "x"}, *({"bytes": None, "path": name} for name in names)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(images, kind), "caption": ["c"] * len(images)})
        pq.write_table(table, root / "0.parquet")
    if form in ("metadata", "journeydb", "journeydb-packed"):
        file, field, text = ("metadata.jsonl", "file_name", "text")
        if form != "metadata":
            file, field, text = (ANNOTATIONS, "img_path", "prompt")
        with (root / file).open("a") as lines:
            lines.writelines("\n" + json.dumps({field: name, text: "c"}) for name in NAMES)
    return {
        "coco": root / "val",
        "journeydb": root / "data/train/imgs",
        "journeydb-packed": root / "data/train/imgs",
    }.get(form, root)


@pytest.mark.parametrize("form", ["metadata", "coco", "parquet", "journeydb", "journeydb-packed"])
def test_what_names_no_file_is_a_missing_file(form, tmp_path):
    root = tmp_path / "data"
    beside = write_records(root, form)
    write_image(beside / "folder.png" / "note.txt", b"")
    counts, rows = encode(root, tmp_path / "run", form, "data.min_size=8")
    assert counts == {"ok": 1, "quarantined": len(NAMES)}
    assert len(images_in_manifest(tmp_path / "run")) == 1
    reasons = [error for _, status, error in rows if status == "quarantined"]
    assert sum("leaves" in reason for reason in reasons) == 1
    missing = [reason for reason in reasons if "leaves" not in reason and not reason.startswith("malformed")]
    assert all(reason.startswith("missing file") for reason in missing)
    assert len(missing) == (len(NAMES) - 1 if form == "parquet" else len(NAMES) - 2)
    found = survey(source_of(SOURCE_OF.get(form, form), root), 8)
    assert found["images"] == 1 and found["pairs"] == len(NAMES) + 1 - sum("malformed" in it for it in reasons)


def test_a_row_of_parquet_that_leads_out_says_so(tmp_path):
    root = tmp_path / "data"
    write_records(root, "parquet")
    (tmp_path / "up.png").write_bytes(image_bytes(1, "PNG"))
    images = [{"bytes": None, "path": "../up.png"}, {"bytes": image_bytes(0, "PNG"), "path": "../up.png"}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(images, kind), "caption": ["c", "c"]}), root / "0.parquet")
    _, rows = encode(root, tmp_path / "run", "parquet")
    reason = "missing file: path ../up.png leaves the data set"
    assert rows == [("0.parquet/0", "quarantined", reason), ("0.parquet/1", "ok", "")]
    assert survey(source_of("parquet", root), 16)["quarantined"] == {reason: "1, such as 0.parquet/0"}
