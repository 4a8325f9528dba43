"""Captions of images that are not there: counted by the dry run and in the manifest, wherever captions may be."""

import json
import tarfile

import pytest

from lcm_distill.data.sources.interface import ORPHAN
from lcm_distill.data.survey import survey
from tests.data.test_sources import source_of
from tests.foreign import encode, image_bytes, member, write_image


def orphans(form, root, run):
    """Sources of lone captions in the manifest, whose number the dry run says as well."""
    _, rows = encode(root, run, form)
    lone = [source for source, status, error in rows if (status, error) == ("left out", ORPHAN)]
    assert survey(source_of(form, root), 16)["captions_without_an_image"] == len(lone)
    return lone


def test_a_caption_of_coco_whose_image_is_not_listed(tmp_path):
    root = tmp_path / "data"
    write_image(root / "val" / "9.jpg", image_bytes(9))
    images = [{"id": 9, "file_name": "9.jpg"}, {"id": 8}]
    named = [(1, 9, "a"), (2, 12, "of no image"), (3, "9", "of no image"), (4, 8, "malformed"), (5, [9], "c")]
    captions = [{"id": number, "image_id": image, "caption": text} for number, image, text in named]
    content = {"images": images, "annotations": [*captions, {"caption": "nothing tells whose"}]}
    (root / "captions_val.json").write_text(json.dumps(content))
    lone = ["at place 5", "2", "3", "5"]
    assert orphans("coco", root, tmp_path / "run") == sorted(f"captions_val.json: caption {name}" for name in lone)


def test_a_text_beside_an_archive_for_an_image_that_it_does_not_hold(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "1.tar", "w") as archive:
        for name in ("sub/k.jpg", "m.jpg"):
            member(archive, name, image_bytes(1))
    texts = {"zz": {"txt": "no such image"}, "k": {"txt": "one"}, "sub/k": "one", "yy": "nor this", "m": {"txt": "two"}}
    (root / "1.json").write_text(json.dumps(texts))
    (root / "1_more.json").write_text(json.dumps({"zz": {"more": "text"}, "m": {"more": "text"}}))
    (root / "1_scores.json").write_text(json.dumps({"xx": {"scores": 0.5}, "count": 3}))
    lone = ["1.json: yy", "1.json: zz", "1_more.json: zz"]
    assert orphans("webdataset", root, tmp_path / "run") == lone


@pytest.mark.parametrize("form", ["folder", "webdataset"])
def test_a_caption_file_without_an_image(form, tmp_path):
    root = tmp_path / "data"
    write_image(root / "0.jpg", image_bytes(0))
    (root / "0.txt").write_text("zero")
    (root / "lone.txt").write_text("lone")
    if form == "webdataset":
        with tarfile.open(root / "0.tar", "w") as archive:
            for name in ("0.jpg", "0.txt", "lone.txt"):
                member(archive, name, (root / name).read_bytes())
    assert orphans(form, root, tmp_path / "run") == [{"folder": "lone.txt", "webdataset": "0.tar/lone.txt"}[form]]
