"""Images that records name by another path than the one at which they lie, and files of which no record can be made."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.data.sources.interface import DUPLICATE
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.data.survey import survey
from tests.data.test_sources import source_of
from tests.foreign import Item, encode, image_bytes, images_of, pack

CAPTIONS = {"text": "a caption", "prompt": "a caption"}


def lines_of(*fields: dict) -> str:
    return "\n".join(json.dumps({**CAPTIONS, **record}) for record in fields)


def folder(root, names):
    for path in ("x.jpg", "real/y.jpg"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(image_bytes(len(path)))
    (root / "link").symlink_to("real")
    (root / "metadata.jsonl").write_text(lines_of(*({"file_name": name} for name in names)))


def coco(root, names):
    folder(root / "val", [])
    (root / "val" / "metadata.jsonl").unlink()
    content = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, "caption": "a caption"} for n, _ in enumerate(names)],
    }
    (root / "captions_val.json").write_text(json.dumps(content))


def journeydb(root, names):
    folder(root / IMAGES, [])
    (root / IMAGES / "metadata.jsonl").unlink()
    (root / ANNOTATIONS).write_text(lines_of(*({"img_path": name} for name in names)))


FORMS = {"folder": (folder, ""), "coco": (coco, "val/"), "journeydb": (journeydb, f"{IMAGES}/")}


@pytest.mark.parametrize("form", FORMS)
def test_a_path_with_two_dots_and_an_absolute_one_name_the_image_that_they_lead_to(form, tmp_path):
    make, place = FORMS[form]
    root = tmp_path / "data"
    make(root, ["real/../x.jpg", str(root / place / "real/y.jpg"), "../../../../../z.jpg", "/etc/z.jpg"])
    _, rows = encode(root, tmp_path / "run", form)
    assert [source for source, status, _ in rows if status == "ok"] == [f"{place}real/y.jpg", f"{place}x.jpg"]
    rejected = [error for _, status, error in rows if status == "quarantined"]
    assert len(rejected) == 2 and all(" leaves " in error for error in rejected)


def test_a_metadata_file_names_an_image_above_it(tmp_path):
    root = tmp_path / "data"
    folder(root, [])
    (root / "metadata.jsonl").unlink()
    (root / "real" / "metadata.jsonl").write_text(lines_of({"file_name": "../x.jpg"}, {"file_name": "y.jpg"}))
    _, rows = encode(root, tmp_path / "run", "folder")
    images = [(source, status) for source, status, error in rows if "link to a folder" not in error]
    assert images == [("real/y.jpg", "ok"), ("x.jpg", "ok")]


@pytest.mark.parametrize("names", [["link/y.jpg", "real/y.jpg"], ["real/y.jpg", "link/y.jpg"]])
@pytest.mark.parametrize("form", FORMS)
def test_an_image_that_is_named_through_a_link_as_well_is_one_image(form, names, tmp_path):
    make, place = FORMS[form]
    make(tmp_path / "data", ["x.jpg", *names])
    _, rows = encode(tmp_path / "data", tmp_path / "run", form)
    first = f"{place}{names[0]}"
    assert sorted(row for row in rows if "link to a folder" not in row[2]) == sorted(
        [(f"{place}x.jpg", "ok", ""), (first, "ok", ""), (first, "quarantined", DUPLICATE)]
    )


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": content, "path": name} for content, name in rows], kind)
    pq.write_table(pa.table({"image": images, "caption": ["a caption"] * len(rows)}), path)


def test_a_row_of_parquet_without_bytes_names_a_file_beside_it(tmp_path):
    root, own, beside = tmp_path / "data", image_bytes(0), image_bytes(1)
    rows = [(None, "1.jpg"), (own, "own.jpg"), (None, "../sub/1.jpg"), (None, "gone.jpg"), (None, None)]
    table(root / "sub" / "0.parquet", rows)
    for name in ("1.jpg", "own.jpg"):
        (root / "sub" / name).write_bytes(beside)
    _, found = encode(root, tmp_path / "run", "parquet")
    assert found == [
        ("sub/0.parquet/0", "ok", ""), ("sub/0.parquet/0", "quarantined", DUPLICATE), ("sub/0.parquet/1", "ok", ""),
        ("sub/0.parquet/3", "quarantined", "missing file"), ("sub/0.parquet/4", "quarantined", "missing file"),
        ("sub/own.jpg", "left out", "not in a Parquet file"),
    ]  # fmt: skip
    paths = ["sub/0.parquet/0", "sub/0.parquet/1"]
    assert images_of(root, "parquet", paths) == {paths[0]: beside, paths[1]: own}
    source = source_of("parquet", root)
    assert [source.file_of(path) for path in paths] == [root / "sub/1.jpg", root / "sub/0.parquet"]


def test_parquet_files_of_every_ending_are_read_and_other_tables_counted(tmp_path):
    root = tmp_path / "data"
    for number, name in enumerate(("0.PARQUET", "1.pq", "2.Parq")):
        table(root / name, [(image_bytes(number), None)])
    for name in ("3.arrow", "4.Feather", "5.tar", ".6.PQ"):
        (root / name).write_bytes(b"")
    _, rows = encode(root, tmp_path / "run", "parquet")
    unread = "table of a kind that is not read"
    assert rows == [
        (".6.PQ", "left out", "hidden file"), ("0.PARQUET/0", "ok", ""), ("1.pq/0", "ok", ""), ("2.Parq/0", "ok", ""),
        *((name, "left out", unread) for name in ("3.arrow", "4.Feather")),
        ("5.tar", "left out", "archive of a kind that is not read"),
    ]  # fmt: skip


def test_archives_in_a_folder_of_images_are_counted(tmp_path):
    folder(tmp_path, ["x.jpg", "real/y.jpg"])
    for name in ("more.zip", "real/more.TAR.gz"):
        (tmp_path / name).write_bytes(b"")
    found = survey(source_of("folder", tmp_path), 16)
    assert found["left_out"]["archive of a kind that is not read"] == "2, such as more.zip, real/more.TAR.gz"


def test_the_archive_has_what_an_interrupted_extraction_broke_off(tmp_path):
    root = tmp_path / "data"
    names = ["0.png", "1.jpg", "2.webp", "3.gif", "4.jpg", "5.jpg", "6.png"]
    kinds = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".gif": "GIF"}
    images = {name: image_bytes(n, kinds[name[1:]]) for n, name in enumerate(names)}
    pack([Item(name, image, '"a caption"') for name, image in images.items()], root, "journeydb-packed")
    folder = root / IMAGES / "000"
    folder.mkdir()
    for name in names[:4]:
        (folder / name).write_bytes(images[name][:-40])
    (folder / "4.jpg").write_bytes(b"")
    (folder / "5.jpg").write_bytes(other := image_bytes(9))  # whole: it is the image, as it may have been mended
    (folder / "7.jpg").write_bytes(images["1.jpg"][:-40])  # and not in the archive
    with (root / ANNOTATIONS).open("a") as lines:
        lines.write(lines_of({"img_path": "000/7.jpg"}))
    read = images_of(root, "journeydb", [f"{IMAGES}/000/{name}" for name in [*names, "7.jpg"]])
    expected = {**images, "5.jpg": other, "7.jpg": images["1.jpg"][:-40]}
    assert read == {f"{IMAGES}/000/{name}": content for name, content in expected.items()}
    source = source_of("journeydb", root)
    assert source.file_of(f"{IMAGES}/000/0.png") == root / IMAGES / "000.tgz"
    assert source.file_of(f"{IMAGES}/000/5.jpg") == folder / "5.jpg"
    counts, _ = encode(root, tmp_path / "run", "journeydb")
    assert counts == {"ok": 7, "quarantined": 1}
