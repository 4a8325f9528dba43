"""Images that are replaced by others of the same size, as files and within archives, are noticed."""

import os
from pathlib import Path

import pytest

from lcm_distill.config import load_preset
from lcm_distill.data.cache import dataset_changes
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.dataset_changes import Changes, find_changes
from lcm_distill.data.cache.manifest_rows import IMAGE_CHECKSUM
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.precompute import precompute
from lcm_distill.stages.status import status
from tests.foreign import SOURCE_OF, Item, image_bytes, pack

FIRST, OTHER = image_bytes(3, "BMP"), image_bytes(33, "BMP")


def replace(path: Path, content: bytes) -> None:
    """Write a file whose time of change is set back to what it was."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def picture(data) -> Path:
    """One of the data set's images, which is encoded."""
    path = data.root / "m3.jpg"
    path.write_bytes(FIRST)
    data.encode()
    assert len(FIRST) == len(OTHER)
    return path


def test_an_image_of_the_same_size_and_time_is_another_one(data, picture, caplog):
    before = data.images()
    replace(picture, OTHER)
    named = {"not_in_the_cache": 0, "changed": ["m3.jpg"], "gone": []}
    assert status(data.config, data.run)["precompute"]["data"] == named
    assert data.encode().counts == {"quarantined": 0, "changed": 1}
    assert "m3.jpg: changed since it was encoded, and kept as it was" in caplog.text
    for name in ("y", "z"):  # it stays named whatever is added afterwards
        assert status(data.config, data.run)["precompute"]["data"] == named
        data.add(name, "new")
        data.encode()
    after = data.images()
    assert {row: after[row] for row in before} == before and data.is_sound()
    replace(picture, FIRST)
    data.encode()
    assert find_changes(data.cache) == Changes()


def test_an_image_that_was_only_touched_or_copied_is_the_same(data, picture, monkeypatch):
    picture.touch()
    picture.write_bytes(picture.read_bytes())
    assert find_changes(data.cache) == Changes() and data.encode().counts == {"quarantined": 0}
    monkeypatch.setattr(dataset_changes, "replaced_images", lambda *_: pytest.fail("the images were compared again"))
    data.encode()


def test_a_look_reads_so_much_and_says_what_it_did_not_compare(data, picture, monkeypatch):
    replace(picture, OTHER)
    monkeypatch.setattr(dataset_changes, "MOST_READ", len(OTHER) - 1)
    found = status(data.config, data.run)["precompute"]["data"]
    assert found == {"not_in_the_cache": 0, "changed": [], "gone": [], "not_compared": 1}
    assert data.encode().counts == {"quarantined": 0, "changed": 1}


def test_a_row_of_an_image_that_was_replaced_stays_and_is_named(data, caplog):
    path = data.root / "m5.jpg"
    path.write_bytes(FIRST)
    data.encode()
    before = data.images()[5]
    replace(path, OTHER)
    data.add("z", "new")  # which is of the same shard
    data.encode()
    assert "m5.jpg stays as it was encoded: its image is another one now" in caplog.text
    assert data.images()[5] == before and before[IMAGE_CHECKSUM] is not None


@pytest.mark.parametrize("form", ["webdataset", "parquet", "journeydb-packed", "coco"])
def test_an_image_that_is_replaced_within_its_archive(tmp_path, means, form):
    def write(second: bytes) -> None:
        contents = (image_bytes(1, "BMP"), second, image_bytes(2, "BMP"))
        made = [Item(f"{number}.jpg", content, f'"caption {number}"') for number, content in enumerate(contents)]
        pack(made, tmp_path / "new", form)
        for path in [path for path in (tmp_path / "new").rglob("*") if path.is_file()]:
            place = tmp_path / "data" / path.relative_to(tmp_path / "new")
            place.parent.mkdir(parents=True, exist_ok=True)
            (replace if place.exists() else Path.write_bytes)(place, path.read_bytes())
            path.unlink()
        for folder in sorted((tmp_path / "new").rglob("*"), reverse=True):
            folder.rmdir()
        (tmp_path / "new").rmdir()

    write(FIRST)
    chosen = [f"data.source={SOURCE_OF.get(form, form)}", f"data.root='{tmp_path / 'data'}'", "data.valid_fraction=0"]
    config, run = load_preset("shapes", chosen), RunFolder(tmp_path / "run")
    list(precompute(config, run))
    write(OTHER)
    changed = find_changes(Cache.open(config, run)).changed
    assert len(changed) == 1 and "1" in changed[0]
    assert list(precompute(config, run))[-1].counts == {"quarantined": 0, "changed": 1}
