"""Rows that were usable stay what they are when their shard is encoded again."""

import contextlib

import numpy as np
import pytest

from lcm_distill.data.cache import kept_rows
from lcm_distill.pipeline.compaction import compact
from tests.foreign import image_bytes
from tests.growing import stop_at


def test_a_mended_image_is_taken_up_where_others_of_its_shard_are_gone(data):
    (data.root / "m3.jpg").write_bytes(b"not yet an image")
    data.encode()
    before = data.images()
    (data.root / "m3.jpg").write_bytes(image_bytes(3))
    (data.root / "m2.jpg").unlink()
    data.encode(retry_quarantined=True)
    after = data.images()
    assert after.pop(3)["status"] == "ok" and before.pop(3)["status"] == "quarantined"
    assert after == before and data.is_sound()


GONE = {
    "deleted": lambda path: path.unlink(),
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "replaced": lambda path: path.write_bytes(image_bytes(99, size=(80, 90))),
    "all of them": lambda path: [other.unlink() for other in path.parent.iterdir()],
}


@pytest.mark.parametrize(("gone", "compacted"), [*((gone, False) for gone in GONE), ("deleted", True)])
def test_what_is_gone_stays_as_it_was_encoded_where_its_shard_grows(data, gone, compacted):
    """Rows 4 and 5 are in the last shard of captions and of images, which the new sample extends."""
    (data.root / "m4.jpg").write_bytes(b"never an image")
    data.encode()
    if compacted:
        list(compact(data.cache.manifest))
    before, latents, texts = data.images(), data.array("latents_64"), data.array("text")
    assert before[5]["status"] == "ok" and before[4]["status"] == "quarantined"
    GONE[gone](data.root / "m5.jpg")
    data.add("z", "a new caption", 7)
    data.encode()
    after = data.images()
    assert after.pop(6)["source"] == "z.jpg"
    assert after.pop(4)["status"] == before.pop(4)["status"] == "quarantined" and after == before
    assert np.array_equal(data.array("latents_64")[:6], latents, equal_nan=True)
    assert np.array_equal(data.array("text")[:6], texts) and np.isfinite(data.array("latents_64")[6]).all()
    assert data.is_sound() and not data.cache.storage.listing(kept_rows.FOLDER)


def test_a_quarantined_image_that_is_mended_is_used_where_its_shard_grows(data):
    (data.root / "m4.jpg").write_bytes(b"not yet an image")
    data.encode()
    (data.root / "m4.jpg").write_bytes(image_bytes(4))
    data.add("z", "new")
    data.encode()
    assert data.images()[4]["status"] == "ok" and data.is_sound()


@pytest.mark.parametrize(
    ("stopped_at", "retry"), [*((n, False) for n in range(8, 17, 2)), *((n, True) for n in (1, 2, 4))]
)
def test_what_is_gone_stays_however_often_the_command_is_interrupted(data, monkeypatch, stopped_at, retry):
    (data.root / "m4.jpg").write_bytes(b"not yet an image")
    data.encode()
    before, latents = data.images()[5], data.array("latents_64")[5]
    (data.root / "m5.jpg").unlink()
    (data.root / "m4.jpg").write_bytes(image_bytes(4))
    if not retry:
        data.add("z", "new", 7)
    with monkeypatch.context() as patch:
        stop_at(patch, type(data.cache.storage), stopped_at)
        with contextlib.suppress(KeyboardInterrupt):
            data.encode(retry_quarantined=retry)
    data.encode(retry_quarantined=retry)
    data.encode()
    assert data.images()[5] == before and np.array_equal(data.array("latents_64")[5], latents)
    assert data.images()[4]["status"] == "ok"
    assert data.is_sound() and not data.cache.storage.listing(kept_rows.FOLDER)


def test_rows_of_a_shard_that_was_cut_short_stay_where_their_image_is_gone(data):
    data.encode()
    before, shard = data.images(), data.run.cache / "latents_64/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[: 3 * data.stride])
    for name in ("m1.jpg", "m3.jpg"):
        (data.root / name).unlink()
    data.encode()
    after = data.images()
    assert [row for row in before if after[row] != before[row]] == [3] and after[3]["error"] == "missing file"
    assert data.is_sound()


def test_rows_that_are_numbered_anew_are_of_other_samples(data):
    """Without its catalog's commit a data set is numbered again: no row of before is taken for another sample's."""
    data.encode()
    (data.run.cache / "manifest" / "catalog.parquet").unlink()
    (data.root / "m0.jpg").unlink()
    data.encode()
    assert list(data.rows()) == ["m1.jpg", "m2.jpg", "m3.jpg", "m4.jpg", "m5.jpg"]
    assert [row["source"] for row in data.images().values()] == list(data.rows()) and data.is_sound()
