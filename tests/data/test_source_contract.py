"""What every source promises: each image on disk is a row that is ok, or quarantined, or counted as left out."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lcm_distill.data.sources.interface import ORPHAN, Annotation
from lcm_distill.data.sources.journeydb import IMAGES
from lcm_distill.data.sources.record_validation import checked
from lcm_distill.formats.images import UnusableImage
from tests.data.test_sources import source_of
from tests.foreign import (
    OTHER_FORMATS,
    SOURCE_OF,
    SOURCES,
    Item,
    encode,
    image_bytes,
    images_in_manifest,
    images_on_disk,
    member,
    pack,
    write_image,
)

KINDS = ["JPEG"] * 4 + ["PNG", "WEBP", "GIF", "BMP", "TIFF"]
ENDINGS = {"JPEG": (".jpg", ".JPG", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "GIF": (".gif",), "BMP": (".bmp",),
           "TIFF": (".tif", ".tiff")}  # fmt: skip
CAPTIONS = ['"a red square"', '"caf\xc3\xa9"', '"caf\xe9"', '"  "', None, '"a \\ud800"', '"\\u001b[2J"', '""']
STEMS = ["{n}", "{n}.05", "s{n}.input", "sub/{n}", "sub.v1/deep/{n}", "图{n}", "n {n}"]


def tree_of(number: int) -> list[Item]:
    """Images of every kind and name, usable ones and others, with captions of every kind."""
    random = np.random.default_rng(7)
    files = {kind: image_bytes(n, kind, (16, 16)) for n, kind in enumerate(dict.fromkeys(KINDS))}
    made = []
    for n in range(number):
        kind = str(random.choice(KINDS))
        name = str(random.choice(STEMS)).format(n=n) + str(random.choice(ENDINGS[kind]))
        image, caption, draw = files[kind], CAPTIONS[0], random.random()
        if draw < 0.1:
            image = random.choice([b"", b"no image", files[kind][: len(files[kind]) // 3]])
        elif draw < 0.13:
            image = str(random.choice(["fifo", "socket", "device", "broken link"]))
        elif draw < 0.35:
            caption = CAPTIONS[int(random.integers(len(CAPTIONS)))]
        made.append(Item(name, bytes(image) if isinstance(image, bytes) else image, caption))
    read = [Item(f"j{n}{suffix}", files["JPEG"], CAPTIONS[0]) for n, suffix in enumerate((".jfif", ".JPE"))]
    captioned = [Item(f"o{suffix}", b"of another format", CAPTIONS[0]) for suffix in OTHER_FORMATS]
    return [*made, *read, *captioned, *(Item(f"b{suffix}", b"bare", None) for suffix in OTHER_FORMATS)]


def add_left_out(root: Path, form: str) -> int:
    """Files that are no part of the data set, images all of them but for a hidden archive; returns how many."""
    folder = {"coco": root / "val", "journeydb": root / IMAGES / "000", "journeydb-packed": root / IMAGES / "001"}
    hidden = ["._0.jpg", ".ipynb_checkpoints/0.png", "__MACOSX/._1.jpg", "sub/.thumbnails/2.webp", "@eaDir/3.gif"]
    archives = {"webdataset": ["._0.tar", ".old/1.tgz"], "parquet": ["._0.parquet"]}.get(form, [])
    for name in [*hidden, *archives]:
        write_image(folder.get(form, root) / name, b"hidden")
    if form == "folder":
        return len(hidden)
    unnamed = [f"unnamed{suffix}" for suffix in (".jpg", *OTHER_FORMATS)]
    for name in unnamed:
        write_image(folder.get(form, root) / name, image_bytes(0))
    return len(hidden) + len(archives) + len(unnamed)


def add_links(root: Path, form: str, elsewhere: Path) -> int:
    """A link to a folder of images elsewhere, and links that lead back; returns how many images it adds."""
    if form != "folder":
        return 0
    pack(tree_of(20), elsewhere, "folder")
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "again").symlink_to(elsewhere)
    return images_on_disk(elsewhere)


def add_several(root: Path, form: str) -> None:
    """Images with a list of captions, in archives one name twice; of the last image none is text."""
    lists = [["one", " ", "two", "one"], [f"single {form}"], [None, " "]]
    texts = [json.dumps({"text": captions, "txt": captions}).encode() for captions in lists]
    if form == "folder":
        for n, text in enumerate(texts):
            write_image(root / f"several/{n}.jpg", image_bytes(n, size=(16, 16)))
            (root / f"several/{n}.json").write_bytes(text)
    if form == "webdataset":
        for suffix in (".tgz", ".tar.gz"):
            with tarfile.open(root / f"several{suffix}", "w:gz") as archive:
                for n, text in [*enumerate(texts), (0, texts[0])]:
                    member(archive, f"{n}.jpg", image_bytes(n, size=(16, 16)))
                    member(archive, f"{n}.json", text)


@pytest.mark.parametrize(
    ("form", "per_image"), [*((form, "one") for form in SOURCES), ("folder", "all"), ("webdataset", "all")]
)
def test_every_image_on_disk_is_in_the_manifest(form, per_image, tmp_path):
    """2,000 files of all kinds: images on disk = rows ok + rows quarantined + files counted as left out."""
    root = tmp_path / "data"
    made = tree_of(1_000 if form == "folder" else 2_000)  # with as many caption files
    if form == "coco":  # one byte that is not UTF-8 ends its only file
        made = [item for item in made if item.caption is None or "\xe9" not in item.caption.replace("\xc3\xa9", "")]
    pack(made, root, form)
    others = add_left_out(root, form)
    add_several(root, form)
    linked = add_links(root, form, tmp_path / "elsewhere")
    counts, rows = encode(root, tmp_path / "run", form, "data.min_size=8", f"data.captions_per_image={per_image}")
    reasons = Counter(error for _, status, error in rows if status == "left out")
    no_image = reasons[ORPHAN] + reasons["link to a folder that is read already"]
    assert counts["ok"] > 500 and counts["quarantined"] > 100
    assert reasons["hidden file"] == (others if form == "folder" else others - 1 - len(OTHER_FORMATS))
    if form != "parquet":  # whose images have no names
        others_read = {source for source, status, _ in rows if status == "ok" and source.endswith((".jfif", ".JPE"))}
        assert len(others_read) == (4 if form == "folder" else 2)
    on_disk = images_on_disk(root) + linked
    if form == "journeydb-packed":
        on_disk = len(made) + others
    assert counts["left out"] - no_image == others
    images = images_in_manifest(tmp_path / "run")
    hidden_archives = {"webdataset": 2, "parquet": 1}.get(form, 0)
    assert len(images) == on_disk - hidden_archives
    further = {"folder": 1, "webdataset": 2}[form] if per_image == "all" else 0
    missing = sum(error.startswith("missing file") for _, _, error in rows)
    assert missing > 5 or form in ("webdataset", "journeydb-packed")
    assert counts.total() - no_image - further - missing == on_disk
    assert all(error for _, status, error in rows if status != "ok")


@pytest.mark.parametrize("form", SOURCES)
def test_a_source_gives_the_same_records_again_and_reads_each_once(form, tmp_path):
    pack(tree_of(60), tmp_path, form)
    if form == "coco":
        return
    source = source_of(SOURCE_OF.get(form, form), tmp_path)
    records = list(checked(source))
    assert records == list(checked(source))
    annotations = [record for record in records if isinstance(record, Annotation)]
    assert len({record.sample_id for record in annotations}) == len(annotations) > 10
    paths = sorted((record.path for record in annotations), key=lambda path: path.rpartition("/")[0])
    contents = list(source.read(iter(paths)))
    assert Counter(path for path, _ in contents) == Counter(paths)
    assert all(isinstance(content, bytes | UnusableImage) for _, content in contents)
    assert all(isinstance(source.file_of(path), Path) for path in paths)
