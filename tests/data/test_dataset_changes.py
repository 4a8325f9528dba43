"""A data set that grows, changes or shrinks after its first encoding."""

import contextlib
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.cache import catalog_files, dataset_changes
from lcm_distill.data.cache.dataset_changes import Changes, find_changes
from lcm_distill.data.cache.image_shards import RowRange
from lcm_distill.data.transforms import TRANSFORM
from lcm_distill.pipeline.compaction import compact
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.stages.precompute import STAGE, plan_precompute
from lcm_distill.stages.stage import missing
from lcm_distill.stages.status import status
from tests.foreign import image_bytes
from tests.growing import Data, Means, stop_at


def test_new_records_extend_the_catalog_and_the_others_keep_their_rows(data):
    data.encode()
    before = data.rows()
    data.add("a", "caption 0")
    data.add("z", "a new caption")
    last = data.encode()
    assert last.counts["added"] == 2 and last.done == last.total
    assert data.rows() == before | {"a.jpg": 6, "z.jpg": 7}
    captions = pq.read_table(data.run.cache / "catalog" / "captions.parquet")["caption"].to_pylist()
    assert captions == [*(f"caption {number}" for number in range(6)), "a new caption"]
    assert data.is_sound()
    assert zarr.open_array(data.run.cache / "latents_64", mode="r").shape[0] == 8
    assert np.isfinite(np.asarray(zarr.open_array(data.run.cache / "latents_64", mode="r")[:])).all()
    assert "added" not in data.encode().counts


def test_an_image_that_got_its_caption_is_taken_up(tmp_path, means):
    """The command that failed for want of captions succeeds once there are some."""
    data = Data(tmp_path)
    data.add("a", None)
    with pytest.raises(UserError, match="could be used"):
        data.encode()
    data.add("a", "a caption")
    last = data.encode()
    assert last.done == last.total and last.counts == {"quarantined": 0, "added": 1} and data.is_sound()


def test_what_has_changed_or_is_gone_is_named_and_kept(data, caplog):
    data.encode()
    before = data.rows()
    (data.root / "m1.txt").write_text("another caption, of another length")
    (data.root / "m2.jpg").unlink()
    found = find_changes(data.cache)
    assert (found.changed, found.gone, found.added) == (("m1.jpg",), ("m2.jpg",), 0)
    assert data.encode().counts | {"quarantined": 0} == {"quarantined": 0, "changed": 1, "gone": 1}
    assert "m1.jpg: changed" in caplog.text and "m2.jpg: gone" in caplog.text
    assert data.rows() == before and data.is_sound()
    captions = pq.read_table(data.run.cache / "catalog" / "captions.parquet")["caption"].to_pylist()
    assert captions[1] == "caption 1"


def test_what_was_named_stays_named_until_the_cache_is_made_anew(data):
    data.encode()
    (data.root / "m1.txt").write_text("another caption, of another length")
    (data.root / "m2.jpg").unlink()
    (data.root / "m3.jpg").write_bytes(image_bytes(33, size=(90, 80)))  # another image of the same name
    (data.root / "m4.jpg").touch()
    named = {"not_in_the_cache": 0, "changed": ["m1.jpg", "m3.jpg"], "gone": ["m2.jpg"]}
    for _ in range(3):
        assert status(data.config, data.run)["precompute"]["data"] == named
        before = data.images()
        data.encode()
        assert data.images() == before and data.is_sound()
    shutil.rmtree(data.run.cache)
    data.encode()
    assert find_changes(data.cache) == Changes()


def test_an_image_that_was_mended_and_taken_up_has_not_changed(data):
    (data.root / "m3.jpg").write_bytes(b"not yet an image")
    data.encode()
    (data.root / "m3.jpg").write_bytes(image_bytes(3))
    data.encode(retry_quarantined=True)
    assert find_changes(data.cache) == Changes()


def test_a_cache_of_an_earlier_version_names_no_image_without_knowing_its_size(data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lcm_distill.data.cache.image_shards.RowRange.add", add_without_a_size(RowRange.add))
        data.encode()
    data.cache.storage.put(dataset_changes.STATE_FILE, [b'{"state": "1234"}'])
    (data.root / "m3.jpg").write_bytes(image_bytes(33, size=(90, 80)))
    (data.root / "m2.jpg").unlink()
    assert find_changes(data.cache) == Changes(gone=("m2.jpg",))
    assert data.encode().counts == {"quarantined": 0, "gone": 1}
    assert find_changes(data.cache) == Changes(gone=("m2.jpg",)) and data.is_sound()


def add_without_a_size(add):
    """`RowRange.add` as it was."""

    def without(self, index, image):
        add(self, index, image)
        for shard in self.shards:
            shard.rows[index].pop("image_bytes", None)

    return without


def test_nothing_is_read_again_where_nothing_has_changed(data, monkeypatch):
    data.encode()
    monkeypatch.setattr(
        dataset_changes, "extend_annotations", lambda *_: pytest.fail("the annotations were read again")
    )
    data.encode()


def test_a_cache_whose_data_set_is_away_stays_complete(data):
    data.encode()
    data.root.rename(data.root.with_name("away"))
    last = data.encode()
    assert last.done == last.total == last.resumed


def test_status_says_that_a_data_set_is_not_there(data, monkeypatch, tmp_path):
    data.encode()
    data.root.rename(tmp_path / "away")
    found = status(data.config, data.run)["precompute"]["data"]
    assert found == {"missing": f"{data.root} is not there: compared once it is"}
    data.root.write_text("a file")
    found = status(data.config, data.run)["precompute"]["data"]
    assert found == {"missing": f"{data.root} is a file: compared once it is a folder"}
    monkeypatch.chdir(tmp_path / "away")
    elsewhere = data.config.changed(["data.root='data'"], "test")  # as it is given in the folder above
    found = status(elsewhere, data.run)["precompute"]["data"]
    assert found == {"missing": f"{tmp_path / 'away' / 'data'} is not there: compared once it is"}


def test_status_says_why_a_data_set_cannot_be_compared(data, monkeypatch):
    def damaged(cache):
        raise DataError("captions_val.json is damaged")

    data.encode()
    monkeypatch.setattr("lcm_distill.stages.status.find_changes", damaged)
    assert status(data.config, data.run)["precompute"]["data"] == {"unreadable": "captions_val.json is damaged"}


@pytest.mark.parametrize("work", ["distill", "pretrain"])
def test_a_data_set_does_not_grow_under_a_training(data, work):
    data.encode()
    (data.run.root / work).mkdir()
    data.add("z", "new")
    assert "added" not in data.encode().counts and len(data.rows()) == 6
    assert find_changes(data.cache).added == 1


@pytest.mark.parametrize("work", ["distill", "pretrain"])
def test_quarantined_images_are_not_taken_up_under_a_training(data, work):
    (data.root / "m3.jpg").write_bytes(b"not yet an image")
    data.encode()
    before, training = data.images(), data.run.root / work
    training.mkdir()
    (data.root / "m3.jpg").write_bytes(image_bytes(3))
    said = f"would change the cache that {training} began with: choose another --run, or delete {training} to begin"
    with pytest.raises(UserError, match=re.escape(said)):
        data.encode(retry_quarantined=True)
    assert data.images() == before and data.is_sound()
    assert [said in line for line in missing(STAGE, data.config, data.run, [], retry_quarantined=True)] == [True]
    again = status(data.config, data.run)["precompute"]["try_again"]
    assert again == f"lcm precompute --run {data.run.root} --retry-quarantined, once {training} is deleted"
    training.rmdir()
    assert missing(STAGE, data.config, data.run, [], retry_quarantined=True) == []
    assert data.encode(retry_quarantined=True).counts["quarantined"] == 0


def test_quarantined_images_are_not_taken_up_by_ranks(data, monkeypatch):
    data.encode()
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="other ranks may have read already: run it in one process"):
        data.encode(retry_quarantined=True)


def test_a_numbering_that_was_interrupted_is_done_again_and_remembered(data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "commit", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            data.encode()
    assert (data.run.cache / "catalog/samples.parquet").is_file()
    assert "tasks" not in plan_precompute(data.config, data.run)
    data.encode()
    assert plan_precompute(data.config, data.run)["tasks"] == plan_precompute(data.config, data.run)["done"] > 0
    assert (data.run.cache / dataset_changes.STATE_FILE).is_file()
    monkeypatch.setattr(
        dataset_changes, "extend_annotations", lambda *_: pytest.fail("the annotations were read again")
    )
    data.encode()


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("stopped_at", range(8))
def test_an_extension_that_is_interrupted_begins_anew(data, monkeypatch, compacted, stopped_at):
    data.encode()
    if compacted:
        list(compact(data.cache.manifest))
    before = data.rows()
    data.add("a", "a new caption")
    with monkeypatch.context() as patch:
        stop_at(patch, type(data.cache.storage), stopped_at)
        with contextlib.suppress(KeyboardInterrupt):
            data.encode()
    data.encode()
    assert data.rows() == before | {"a.jpg": 6} and data.is_sound()
    assert not data.cache.storage.listing(catalog_files.BEFORE)


def test_quarantined_images_are_tried_again_when_asked(data):
    (data.root / "m3.jpg").write_bytes(b"not yet an image")
    assert data.encode().counts["quarantined"] == 1
    (data.root / "m3.jpg").write_bytes(image_bytes(3))
    assert data.encode().counts["quarantined"] == 1
    last = data.encode(retry_quarantined=True)
    assert last.counts["quarantined"] == 0 and last.done - last.resumed == 4 and data.is_sound()
    assert data.encode(retry_quarantined=True).resumed == 12


class OverflowsOnce(Means):
    """Gives NaN for captions about number 2, and then what it should."""

    def encode_texts(self, captions):
        embedded = super().encode_texts(captions)
        embedded[[caption == "caption 2" for caption in captions]] = float("nan")
        return embedded


@pytest.mark.parametrize("compacted", [False, True])
def test_quarantined_captions_are_tried_again_when_asked(data, monkeypatch, compacted):
    with monkeypatch.context() as patch:
        patch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", OverflowsOnce)
        assert data.encode().counts["quarantined"] == 1
    if compacted:
        list(compact(data.cache.manifest))
    before, images = data.array("text"), data.images()
    assert data.encode().counts["quarantined"] == 1 and len(data.cache.usable("train")) == 5
    last = data.encode(retry_quarantined=True)
    assert last.counts["quarantined"] == 0 and last.done - last.resumed == 4 and data.is_sound()
    assert len(data.cache.usable("train")) == 6 and status(data.config, data.run)["precompute"]["try_again"] is None
    after = data.array("text")
    assert (after[2] == len("caption 2")).all() and np.array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))
    assert data.images() == images and data.encode(retry_quarantined=True).resumed == 12


def test_a_cache_keeps_the_crops_that_it_was_begun_with(data):
    (data.root / "m0.jpg").write_bytes(image_bytes(0, size=(65, 64)))
    data.encode()
    described = data.run.cache / "latents_64" / "zarr.json"
    content = json.loads(described.read_text())
    assert content["attributes"].pop("transform") == TRANSFORM == data.cache.transform
    del content["attributes"]["sha256"]  # earlier versions wrote neither
    described.write_text(json.dumps(content))
    assert data.cache.transform == 1
    data.add("z", "new")
    data.encode()
    assert data.cache.transform == 1
