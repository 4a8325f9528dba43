"""What is read of a folder of images: suffixes, links, hidden folders, and how far a metadata file reaches."""

import os

import pytest
from PIL import Image

from lcm_distill.data.sources.interface import Annotation
from lcm_distill.formats.images import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from tests.data.test_source_formats import records_of, tar
from tests.data.test_sources import source_of


def test_every_suffix_of_an_image_counts_in_a_folder(tmp_path):
    for suffix in IMAGE_SUFFIXES:
        (tmp_path / f"{suffix[1:]}{suffix}").write_bytes(b"")
        (tmp_path / f"{suffix[1:]}.txt").write_text(suffix)
    assert {".bmp", ".gif", ".tiff"} < set(IMAGE_SUFFIXES)
    assert sorted(records_of("folder", tmp_path).values()) == sorted(IMAGE_SUFFIXES)


def test_every_suffix_that_pillow_knows_is_read_or_counted():
    """Also those that Pillow learns: as read, as of another format, or as no image."""
    Image.init()
    no_images = {".pdf", ".h5", ".hdf", ".bufr", ".grib", ".iim", ".mpg", ".mpeg"}
    assert set(Image.EXTENSION) <= {*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES, *no_images}
    assert {".heic", ".avif", ".jp2", ".ppm", ".dng"} < set(OTHER_IMAGE_SUFFIXES)
    assert set(OTHER_IMAGE_SUFFIXES).isdisjoint(IMAGE_SUFFIXES)


@pytest.mark.parametrize("name", ["folder", "webdataset"])
def test_images_of_other_formats_are_quarantined_and_leave_identifiers_alone(tmp_path, name):
    members = ("1.jpg", "1.JFIF", "1.heic", "1.txt", "2.avif", "3.jpe", "3.txt")
    if name == "webdataset":
        tar(tmp_path / "a.tar", *((member, b"caption") for member in members))
    else:
        for member in members:
            (tmp_path / member).write_bytes(b"caption")
    place = "a.tar/" if name == "webdataset" else ""
    heic, avif = (f"bad: .{suffix} is not decoded: convert it to PNG or JPEG" for suffix in ("heic", "avif"))
    assert records_of(name, tmp_path) == {
        f"{place}1.jpg": "caption", f"{place}1.JFIF": "caption", f"{place}1.heic": heic, f"{place}2.avif": avif,
        f"{place}3.jpe": "caption",
    }  # fmt: skip
    identifiers = [it.sample_id for it in source_of(name, tmp_path).annotations() if isinstance(it, Annotation)]
    assert set(identifiers) == {f"{place}1.JFIF", f"{place}1" if place else "1.jpg", f"{place}3.jpe"}


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (root / "own", elsewhere):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(b"")
        (folder / "a.txt").write_text(folder.name)
    (root / "linked").symlink_to(elsewhere)
    (root / "again").symlink_to(root / "own")
    (elsewhere / "up").symlink_to(root)
    (root / "self").symlink_to("self")
    os.link(elsewhere / "a.jpg", root / "hard.jpg")
    assert records_of("folder", root) == {
        "own/a.jpg": "own", "linked/a.jpg": "elsewhere", "hard.jpg": "bad: malformed annotation: no text",
        "again": "left out: link to a folder that is read already",
        "linked/up": "left out: link to a folder that is read already",
    }  # fmt: skip


def test_a_metadata_file_below_the_root_decides_about_its_own_folder_alone(tmp_path):
    for name in ("a.jpg", "listed/b.jpg", "listed/c.jpg", "listed/deeper/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name).with_suffix(".txt").write_text("pair")
    (tmp_path / "listed" / "metadata.jsonl").write_text('{"file_name": "b.jpg", "text": "line"}\n')
    unnamed = "left out: not named by the metadata file above it"
    assert records_of("folder", tmp_path) == {
        "a.jpg": "pair", "listed/b.jpg": "line", "listed/c.jpg": unnamed, "listed/deeper/d.jpg": unnamed
    }  # fmt: skip


def test_a_link_shows_what_a_hidden_folder_holds(tmp_path):
    """As tools leave it that keep the files in a store of their own; what no link leads to stays hidden."""
    for name in (".store/a.jpg", ".store/.thumbs/a.jpg", ".other/b.jpg", "elsewhere/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".store" / "a.txt").write_text("stored")
    (tmp_path / "images").symlink_to(".store")
    (tmp_path / ".other" / "link").symlink_to("../elsewhere")
    assert records_of("folder", tmp_path) == {
        "images/a.jpg": "stored", "images/.thumbs/a.jpg": "left out: hidden file",
        ".other/b.jpg": "left out: hidden file", "elsewhere/c.jpg": "bad: malformed annotation: no text",
    }  # fmt: skip
    assert records_of("folder", tmp_path / "images")["a.jpg"] == "stored"
