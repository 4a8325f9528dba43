"""Links to files: an image, archive or table is one, however many names it has; every name is in the manifest."""

import json
import tarfile

import pytest

from lcm_distill.data.sources.file_tree import NO_SUFFIX
from lcm_distill.data.sources.interface import DUPLICATE, ORPHAN
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from tests.data.test_places import table
from tests.foreign import Item, encode, image_bytes, images_in_manifest, member, pack, write_image

AGAIN = "link to a file that is read already"
OK = ("ok", "")


def found(form, root, run):
    """Status and error of every record by source, of which none comes twice."""
    _, rows = encode(root, run, form)
    by_name = {source: (status, error) for source, status, error in rows}
    assert len(by_name) == len(rows)
    return by_name


def linked_images(folder):
    """Two images, and links to one of them that stand before and after it."""
    for n in (1, 2):
        write_image(folder / f"{n}.jpg", image_bytes(n))
    for name in ("0.jpg", "l.jpg"):
        (folder / name).symlink_to("1.jpg")


def test_a_link_to_an_image_with_a_caption_of_its_own(tmp_path):
    linked_images(tmp_path / "data")
    for n in ("0", "1", "2", "l"):
        (tmp_path / "data" / f"{n}.txt").write_text(f"caption {n}")
    again = ("quarantined", DUPLICATE)
    assert found("folder", tmp_path / "data", tmp_path / "run") == {
        "0.jpg": again, "1.jpg": OK, "2.jpg": OK, "l.jpg": again
    }  # fmt: skip
    assert len(images_in_manifest(tmp_path / "run")) == 4


def test_a_link_has_the_caption_that_its_image_lacks(tmp_path):
    root = tmp_path / "data"
    write_image(root / "raw" / "1.jpg", image_bytes(1))
    (root / "set").mkdir()
    (root / "set" / "a.jpg").symlink_to("../raw/1.jpg")
    (root / "set" / "a.txt").write_text("a caption")
    assert found("folder", root, tmp_path / "run") == {"raw/1.jpg": ("quarantined", DUPLICATE), "set/a.jpg": OK}


def test_of_two_links_to_an_image_elsewhere_the_first_counts(tmp_path):
    write_image(tmp_path / "elsewhere" / "x.jpg", image_bytes(1))
    root = tmp_path / "data"
    root.mkdir()
    for name in "ab":
        (root / f"{name}.jpg").symlink_to(tmp_path / "elsewhere" / "x.jpg")
        (root / f"{name}.txt").write_text("a caption")
    assert found("folder", root, tmp_path / "run") == {"a.jpg": OK, "b.jpg": ("quarantined", DUPLICATE)}


@pytest.mark.parametrize("named", [["0.jpg"], ["1.jpg"]])
@pytest.mark.parametrize("form", ["metadata", "coco", "journeydb"])
def test_records_that_name_an_image_by_one_name(form, named, tmp_path):
    """The other names are duplicates."""
    root, place = tmp_path / "data", {"metadata": "", "coco": "val/", "journeydb": f"{IMAGES}/000/"}[form]
    linked_images(root / place)
    names = [*named, "2.jpg"]
    records = [{"file_name": name, "text": "a", "img_path": f"000/{name}", "prompt": "a"} for name in names]
    lines = "\n".join(map(json.dumps, records))
    if form == "metadata":
        (root / "metadata.jsonl").write_text(lines)
    if form == "journeydb":
        (root / ANNOTATIONS).write_text(lines)
    if form == "coco":
        captions = [{"id": n, "image_id": n, "caption": "a"} for n, _ in enumerate(records)]
        images = [{"id": n, **record} for n, record in enumerate(records)]
        (root / "captions_val.json").write_text(json.dumps({"images": images, "annotations": captions}))
    statuses = found(form, root, tmp_path / "run")
    assert statuses == {
        f"{place}{name}": OK if name in names else ("quarantined", DUPLICATE)
        for name in ("0.jpg", "1.jpg", "2.jpg", "l.jpg")
    }


def test_an_archive_and_a_table_by_a_second_name_are_read_once(tmp_path):
    pack([Item(f"{n}.jpg", image_bytes(n), '"a caption"') for n in range(2)], tmp_path / "w", "webdataset")
    (tmp_path / "w" / "same.tar").symlink_to("0.tar")
    table(tmp_path / "p" / "b.parquet", [(image_bytes(1), None)])
    (tmp_path / "p" / "a.parquet").symlink_to("b.parquet")
    read = found("webdataset", tmp_path / "w", tmp_path / "run-w")
    assert read == {"0.tar/0.jpg": OK, "0.tar/1.jpg": OK, "same.tar": ("left out", AGAIN)}
    read = found("parquet", tmp_path / "p", tmp_path / "run-p")
    assert read == {"b.parquet/0": OK, "a.parquet": ("left out", AGAIN)}


# Names without a suffix, or with two


@pytest.mark.parametrize("form", ["folder", "webdataset", "coco", "journeydb"])
def test_an_image_without_a_suffix_is_counted(form, tmp_path):
    root = tmp_path / "data"
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
    pack([Item("0.jpg", image_bytes(0), '"a caption"')], root, form)
    bare = {
        **{kind: image_bytes(1, kind) for kind in kinds},
        "README": b"BMW, II*, GIF",
        "LICENSE": b"",
        "other": b"\0" * 99,
    }
    place = {"coco": "val/", "journeydb": f"{IMAGES}/000/", "webdataset": "1.tar/"}.get(form, "")
    for name, content in bare.items() if form != "webdataset" else ():
        write_image(root / place / name, content)
    if form == "webdataset":
        with tarfile.open(root / "1.tar", "w") as archive:
            for name, content in bare.items():
                member(archive, name, content)
    left = {name for name, said in found(form, root, tmp_path / "run").items() if said == ("left out", NO_SUFFIX)}
    assert left == {f"{place}{kind}" for kind in kinds}


@pytest.mark.parametrize("form", ["folder", "webdataset"])
def test_a_caption_file_with_the_whole_name_of_its_image(form, tmp_path):
    """Where there is none with the name without suffix."""
    root = tmp_path / "data"
    names = {"c.jpg.txt": "c", "d.jpg.txt": "not this", "d.txt": "d", "e.jpg.txt": "nobody's"}
    for name, text in names.items():
        write_image(root / name, text.encode())
    for name in ("c.jpg", "d.jpg"):
        write_image(root / name, image_bytes(1))
    if form == "webdataset":
        with tarfile.open(root / "0.tar", "w") as archive:
            for path in sorted(root.glob("[c-e].*")):
                member(archive, path.name, path.read_bytes())
                path.unlink()
    place = "0.tar/" if form == "webdataset" else ""
    statuses = found(form, root, tmp_path / "run")
    assert statuses == {f"{place}c.jpg": OK, f"{place}d.jpg": OK, f"{place}e.jpg.txt": ("left out", ORPHAN)}
