"""Captions beside images: files by suffix, JSON under the image's name, and several captions of one image."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr

from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.catalog import split_of
from lcm_distill.data.sources.interface import ORPHAN, Annotation, BadAnnotation
from lcm_distill.data.survey import survey
from tests.data.test_dataset_changes import Data
from tests.data.test_source_formats import records_of, tar
from tests.data.test_sources import source_of
from tests.foreign import Zeros, encode, image_bytes, images_on_disk

SANA = {
    "sub/a.png": b"", "sub/a.txt": b"short", "sub/a_VLM.json": b'{"a": {"VLM": "long", "score": 3}}',
    "b.v1.png": b"", "b.v1_VLM.json": b'{"b.v1": "by its name"}', "c.png": b"", "c_VLM.json": b'{"d": {"VLM": "of d"}}',
    "e_VLM.json": b"{}", "f.png": b"", "f.txt": b"f",
}  # fmt: skip


def write(root, name, files) -> str:
    """The files in a folder or an archive; returns what paths begin with."""
    if name == "webdataset":
        tar(root / "0.tar", *files.items())
        return "0.tar/"
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return ""


@pytest.mark.parametrize(("name", "text"), [("folder", "text"), ("webdataset", "txt")])
def test_caption_files_by_suffix(tmp_path, name, text):
    start = write(tmp_path, name, SANA)
    suffixes = 'data.caption_suffixes=[".txt", "_VLM.json"]'
    long = records_of(name, tmp_path, suffixes, f"data.captions={{VLM=1, {text}=1e-9}}")
    assert long == {
        f"{start}sub/a.png": "long", f"{start}b.v1.png": "by its name", f"{start}f.png": "f",
        f"{start}c.png": f"bad: malformed annotation: no VLM or {text}", f"{start}e_VLM.json": f"left out: {ORPHAN}",
    }  # fmt: skip
    short = records_of(name, tmp_path, suffixes)
    assert short[f"{start}sub/a.png"] == "short" and short[f"{start}b.v1.png"] == "by its name"
    usual = records_of(name, tmp_path)
    assert (
        usual[f"{start}sub/a.png"] == "short" and usual[f"{start}b.v1.png"] == f"bad: malformed annotation: no {text}"
    )
    assert sum(reason == f"left out: {ORPHAN}" for reason in usual.values()) == 4


@pytest.mark.parametrize("name", ["folder", "webdataset"])
def test_a_suffix_may_be_any_and_of_any_case(tmp_path, name):
    files = {"1.jpg": b"", "1_Caption.TXT": b"by suffix", "1.txt": b"not read", "2.jpg": b"", "2.prompt": b"two"}
    start = write(tmp_path, name, files)
    found = records_of(name, tmp_path, 'data.caption_suffixes=["_caption.txt", ".prompt"]')
    assert found == {f"{start}1.jpg": "by suffix", f"{start}2.jpg": "two"}


def test_suffixes_that_cannot_be_meant_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"data\.caption_suffixes = \['.x'\]: source parquet has no caption files: unset"
    ):
        source_of("parquet", tmp_path, "data.caption_suffixes=['.x']")
    for wrong in ("['captions/']", "['']", "[]"):
        with pytest.raises(UserError, match=r"data\.caption_suffixes"):
            source_of("folder", tmp_path, f"data.caption_suffixes={wrong}")


# Several captions


LISTS = [["one a", " ", "one b ", "one a"], ["two"], [None, ""], ["three a", "three b"]]
EVERY = "data.captions_per_image=all"


def several(name, root):
    """Four images with the captions of `LISTS`, one of them without text; returns the paths."""
    images = [f"{n}.jpg" for n in range(4)]
    contents = [image_bytes(n) for n in range(4)]
    if name == "parquet":
        pq.write_table(pa.table({"image": contents, "caption": LISTS}), root / "0.parquet")
        return [f"0.parquet/{n}" for n in range(4)]
    if name == "webdataset":
        members = [(image, content) for image, content in zip(images, contents, strict=True)]
        texts = [(f"{n}.json", json.dumps({"txt": texts}).encode()) for n, texts in enumerate(LISTS)]
        tar(root / "0.tar", *members, *texts)
        return [f"0.tar/{image}" for image in images]
    for image, content in zip(images, contents, strict=True):
        (root / image).write_bytes(content)
    if name == "metadata":
        lines = [json.dumps({"file_name": image, "text": texts}) for image, texts in zip(images, LISTS, strict=True)]
        (root / "metadata.jsonl").write_text("\n".join(lines))
    elif name == "folder":
        for n, texts in enumerate(LISTS):
            (root / f"{n}.json").write_text(json.dumps({"text": texts}))
    else:
        captions = [(n, text) for n, texts in enumerate(LISTS) for text in texts]
        records = [{"id": number, "image_id": n, "caption": text} for number, (n, text) in enumerate(captions)]
        files = [{"id": n, "file_name": image} for n, image in enumerate(images)]
        (root / "captions_val.json").write_text(json.dumps({"images": files, "annotations": records}))
    return images


FORMS = ["folder", "metadata", "webdataset", "parquet", "coco"]
SOURCE_OF = {"metadata": "folder"}


@pytest.mark.parametrize("form", FORMS)
def test_each_caption_of_an_image_can_be_a_sample(tmp_path, form):
    paths, name = several(form, tmp_path), SOURCE_OF.get(form) or form
    one = [it for it in source_of(name, tmp_path).annotations() if isinstance(it, Annotation)]
    assert [it.path for it in one] == [paths[0], paths[1], paths[3]]
    assert all(it.caption in [str(text).strip() for text in LISTS[paths.index(it.path)]] for it in one)
    records = list(source_of(name, tmp_path, EVERY).annotations())
    found = [it for it in records if isinstance(it, Annotation)]
    assert [(it.path, it.caption) for it in found] == [
        (paths[0], "one a"), (paths[0], "one b"), (paths[1], "two"), (paths[3], "three a"), (paths[3], "three b"),
    ]  # fmt: skip
    identifiers = [it.sample_id for it in one]
    assert [it.sample_id for it in found] == [
        identifiers[0], f"{identifiers[0]}//2", identifiers[1], identifiers[2], f"{identifiers[2]}//2"
    ]  # fmt: skip
    assert len([it for it in records if isinstance(it, BadAnnotation)]) == 1


def test_all_captions_are_those_of_every_chosen_field(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "t", "long": ["l1", "l2"], "other": "o"}')
    source = source_of("folder", tmp_path, EVERY, "data.captions={long=0.1, text=0.9}")
    found = [it.caption for it in source.annotations() if isinstance(it, Annotation)]
    assert found == ["l1", "l2", "t"]


@pytest.fixture
def means(monkeypatch):
    """Latents are the mean of an image's pixels."""

    class Means(Zeros):
        def encode_pixels(self, resolution, pixels, noise):
            mean = pixels.float().mean(dim=(1, 2, 3))
            return torch.ones(noise.shape, dtype=torch.float16) * mean.view(-1, 1, 1, 1).half()

    monkeypatch.setattr("tests.foreign.Zeros", Means)
    monkeypatch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Means)


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_one_image_have_its_latents_and_are_counted_as_one_image(tmp_path, form, means):
    """Shards of two rows, so that an image's rows lie in two of them."""
    root = tmp_path / "data"
    root.mkdir()
    paths = several(form, root)
    counts, rows = encode(root, tmp_path / "run", SOURCE_OF.get(form) or form, EVERY, "cache.shard_rows=2",
                          "encoders.batch_size=2")  # fmt: skip
    assert counts == {"ok": 5, "quarantined": 1}
    assert images_on_disk(root) == len({source for source, _, _ in rows}) == 4
    assert Counter(source for source, status, _ in rows if status == "ok") == {paths[0]: 2, paths[1]: 1, paths[3]: 2}
    from lcm_distill.formats.images import open_image

    expected = [np.asarray(open_image(image_bytes(n)).convert("RGB"), np.float32).mean() for n in (0, 0, 1, 3, 3)]
    latents = np.asarray(zarr.open_array(tmp_path / "run" / "cache" / "latents_64", mode="r")[:])
    np.testing.assert_allclose(latents[:, 0, 0, 0], expected, rtol=1e-3)
    found = survey(source_of(SOURCE_OF.get(form) or form, root, EVERY), 16)
    assert (found["images"], found["pairs"], found["captions"], found["opened"]) == (4, 5, 5, 3)


def test_a_further_caption_of_an_image_is_taken_up(tmp_path, means):
    data = Data(tmp_path)
    data.config = data.config.changed([EVERY], "test")
    data.add("a", None, 1)
    data.add("b", "of b", 2)
    (data.root / "a.json").write_text('{"text": ["first"]}')
    data.encode()
    (data.root / "a.json").write_text('{"text": ["first", "second"]}')
    assert data.encode().counts["added"] == 1
    assert data.rows() == {"a.jpg": 0, "b.jpg": 1, "a.jpg//2": 2} and data.is_sound()
    latents = np.asarray(zarr.open_array(data.run.cache / "latents_64", mode="r")[:])
    assert latents[2, 0, 0, 0] == latents[0, 0, 0, 0] != latents[1, 0, 0, 0]


def test_the_first_caption_of_an_image_decides_whether_it_is_held_out(tmp_path, means):
    root = tmp_path / "data"
    root.mkdir()
    names = [f"caption {n} of " for n in range(30)]
    for n, name in enumerate(names):
        (root / f"{n:02d}.jpg").write_bytes(image_bytes(0))
        (root / f"{n:02d}.json").write_text(json.dumps({"text": [f"{name}{k}" for k in range(4)]}))
    encode(root, tmp_path / "run", "folder", EVERY, "data.valid_fraction=0.3")
    samples = pq.read_table(tmp_path / "run" / "cache" / "catalog" / "samples.parquet").to_pylist()
    expected = {f"{n:02d}.jpg": split_of(f"{name}0", 0.3) for n, name in enumerate(names)}
    assert len(samples) == 120 and set(expected.values()) == {"train", "valid"}
    assert all(sample["split"] == expected[sample["path"]] for sample in samples)
