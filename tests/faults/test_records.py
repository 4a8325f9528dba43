"""Hostile captions, names and files in every source: each is used or quarantined with its reason."""

import io
import json

import pytest
from PIL import Image

from lcm_distill.data.sources.record_validation import MAX_CAPTION
from tests.foreign import FIELDS, SOURCES, SPECIAL, Item, encode, image_bytes, images_in_manifest, images_on_disk, pack

LONG = '"' + "a long word " * (20_000_000 // 12) + '"'
CAPTIONS: dict[str, tuple[str | None, bool | None]] = {
    "a caption": ('"a red square"', True),
    "terminal control": ('"\\u001b[31mred\\u0007"', True),
    "markup": ('"a [/b] red"', True),
    "lone surrogate": ('"a \\ud800 red"', False),
    "two surrogates of one character": ('"a \\ud83d\\ude00 red"', True),
    "Latin-1": ('"caf\xe9"', False),
    "NUL": ('"a\\u0000b"', False),
    "blank": ('"  \\n "', False),
    "none": (None, False),
    "null": ("null", None),
    "number": ("12", None),
    "long": (LONG, False),
    "nested": ("[" * 200_000, None),
    "deep": ('{"a": ' * 5_000 + "1" + "}" * 5_000, None),
    "not closed": ('"a', None),
}
"""JSON texts of captions, and whether an image is used with it; None: it differs between sources."""
WHOLE_FILE = ("Latin-1", "nested", "deep", "not closed")
"""Captions that make a file of one JSON object unreadable as a whole."""
NAMES = {
    "plain": "image.jpg",
    "not UTF-8": "image\udcff.jpg",
    "control": "im\x1b[2Jage.jpg",
    "new line": "im\nage.jpg",
    "dots": "im.age.1.jpg",
    "spaces": " im age .jpg",
    "letters": "图\u202e像.jpg",
    "long": "x" * 240 + ".jpg",
    "upper case": "IMAGE.JPG",
}


def eps() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "EPS")
    return file.getvalue()


IMAGES = {
    "image": image_bytes(1), "PNG": image_bytes(2, "PNG"), "EPS": eps(), "cut": image_bytes(3)[:700], "empty": b"",
    "text": b"hello",    "small": image_bytes(4, size=(8, 8)), **{kind: kind for kind in SPECIAL},
}  # fmt: skip
USABLE = ("image", "PNG")


def items(random, form: str, number: int) -> list[Item]:
    """Good images, and some with a hostile caption, name or content each."""
    made = [Item(f"good-{n}.jpg", image_bytes(n), '"a green ring"') for n in range(3)]
    for n in range(number):
        name, caption, image = "plain", "a caption", "image"
        match n % 3:
            case 0:
                caption = str(random.choice([*CAPTIONS]))
            case 1:
                name = str(random.choice([*NAMES]))
            case _:
                image = str(random.choice([*IMAGES]))
        if form == "coco" and caption in WHOLE_FILE:
            caption = "lone surrogate"  # the others end the only file that there is: see test_sources
        if form == "parquet" and caption in ("null", "none"):
            caption = "none"
        usable = CAPTIONS[caption][1] and name != "not UTF-8" and image in USABLE
        known = CAPTIONS[caption][1] is not None and not (
            form == "parquet" and name == "not UTF-8"
        )  # it keeps no names
        made.append(Item(f"{n}-{NAMES[name]}", IMAGES[image], CAPTIONS[caption][0], bool(usable) if known else None))
    return made


@pytest.mark.trials(full=140, sample=7)
def test_hostile_records(trials, tmp_path):
    """Hostile captions, names and files in every source: counts in the manifest are those on disk."""
    for trial in trials:
        form = SOURCES[trial % len(SOURCES)]
        made, root = items(trials.random, form, 12), tmp_path / str(trial) / "data"
        pack(made, root, form)
        counts, rows = encode(root, tmp_path / str(trial) / "run", form)
        named = {source: status for source, status, _ in rows}
        # An image whose line cannot be read is not named by any.
        assert counts.total() - counts["left out"] == len(made), (form, rows)
        if form != "journeydb-packed":
            assert len(images_in_manifest(tmp_path / str(trial) / "run")) == images_on_disk(root), (form, rows)
        assert all(error for _, status, error in rows if status != "ok")
        least = sum(item.usable is True for item in made)
        most = least + sum(item.usable is None for item in made)
        assert least <= counts["ok"] <= most and least >= 3, (form, rows)
        assert sum(status == "ok" for source, status in named.items() if "good-" in source) in (3, 0), (form, rows)
        trials.count("complete")


@pytest.mark.parametrize("form", SOURCES)
def test_each_hostile_caption_has_its_reason(form, tmp_path):
    """One image with each of the captions whose fate is the same in every source."""
    kinds = {
        kind: it for kind, it in CAPTIONS.items() if it[1] is not None and not (form == "coco" and kind in WHOLE_FILE)
    }
    made = [Item(f"{n}.jpg", image_bytes(n), caption, usable) for n, (caption, usable) in enumerate(kinds.values())]
    pack(made, tmp_path / "data", form)
    counts, rows = encode(tmp_path / "data", tmp_path / "run", form)
    assert counts["ok"] == sum(item.usable is True for item in made)
    reasons = " ".join(error for _, status, error in rows if status == "quarantined")
    expected = ["lone surrogate U+D800", "NUL at position 1", f"characters, more than {MAX_CAPTION:,}"]
    if form in ("folder", "webdataset"):
        # The file of a caption is bounded before the caption is, and its bytes are those that a surrogate would have.
        expected = ["byte 0xed at position 2", "NUL at position 1", "more than 16,777,216 bytes"]
    if form == "parquet":
        expected = ["byte 0xed at position 2", "NUL at position 1", f"characters, more than {MAX_CAPTION:,}"]
    if form in ("metadata", "journeydb", "journeydb-packed"):
        expected[2] = "a line of more than 16,777,216 bytes"
    assert [text for text in expected if text not in reasons] == [], reasons[:3_000]
    name = FIELDS.get(form, "prompt")
    assert form == "coco" or f"no {name}" in reasons


def test_control_characters_stay_in_the_caption(tmp_path):
    import pyarrow.parquet as pq

    pack([Item("0.jpg", image_bytes(0), CAPTIONS["terminal control"][0])], tmp_path / "data", "metadata")
    encode(tmp_path / "data", tmp_path / "run", "metadata")
    captions = pq.read_table(tmp_path / "run" / "cache" / "catalog" / "captions.parquet")["caption"].to_pylist()
    assert captions == [json.loads(str(CAPTIONS["terminal control"][0]))]
