"""Data of unknown origin: files as people have them, in the form of every source, and a quick encoding of them."""

import io
import json
import os
import stat
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lcm_distill.config import load_preset
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.data.sources.registry import open_source
from lcm_distill.formats.images import IMAGE_SUFFIXES, UnusableImage
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.precompute import precompute

SOURCES = ("folder", "metadata", "webdataset", "parquet", "coco", "journeydb", "journeydb-packed")
"""Forms that `pack` knows."""
SOURCE_OF = {"metadata": "folder", "journeydb-packed": "journeydb", "webdataset-packed": "webdataset"}
FIELDS = {"folder": "text", "metadata": "text", "parquet": "caption", "webdataset": "txt"}
OTHER_FORMATS = (".heic", ".AVIF", ".jp2", ".ppm", ".CR2", ".svg")
"""Suffixes of image files that nothing here decodes."""
SPECIAL = ("fifo", "socket", "device", "broken link", "loop")


@dataclass
class Item:
    """An image, or a special file in place of one, with the bytes of its caption in a JSON string.

    Attributes:
        usable: whether it should end as `ok`; None: either way is right.
    """

    name: str
    image: bytes | str
    caption: str | None
    usable: bool | None = True


def image_bytes(number: int, kind: str = "JPEG", size: tuple[int, int] = (64, 64)) -> bytes:
    """An image file of noise."""
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def pack(items: list[Item], root: Path, form: str) -> None:
    """Write a data set in one of `SOURCES`."""
    {
        "folder": _folder, "metadata": _metadata, "webdataset": _webdataset, "parquet": _parquet, "coco": _coco,
        "journeydb": _journeydb, "journeydb-packed": _journeydb_packed,
    }[form](items, root)  # fmt: skip


def write_image(path: Path, image: bytes | str) -> None:
    """A file, or what looks like one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    elif image == "fifo":
        os.mkfifo(path)
    elif image == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        path.symlink_to({"device": "/dev/zero", "broken link": "nowhere.jpg", "loop": path.name}[image])


def member(archive: tarfile.TarFile, name: str, content: bytes | str) -> None:
    """Add a member to an archive: a file, or a device, pipe or link."""
    found = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        found.size = len(content)
        archive.addfile(found, io.BytesIO(content))
        return
    found.type = {"fifo": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE}.get(content, tarfile.SYMTYPE)
    found.linkname = "../../nowhere.jpg"
    archive.addfile(found)


def line(fields: dict, caption: str | None, name: str) -> bytes:
    """A JSON object whose field `name` has this JSON text as its value."""
    return (
        json.dumps(fields)[:-1].encode()
        + (b"" if caption is None else b", " + json.dumps(name).encode() + b": " + caption.encode("latin-1"))
        + b"}"
    )


def text_of(caption: str) -> bytes:
    """The bytes of a caption file with the caption that is a JSON text: those of the string, as they are."""
    if not caption.startswith('"'):
        return caption.encode("latin-1")
    try:
        return json.loads(caption.encode("latin-1").decode()).encode("utf-8", "surrogatepass")
    except ValueError:
        return caption.strip('"').encode("latin-1")


def encode(root: Path, run: Path, form: str, *assignments: str) -> tuple[Counter, list[tuple[str, str, str]]]:
    """Run `precompute` with encoders that return zeros; the number of rows by status, and source, status and error."""
    config = load_preset(
        "shapes",
        [f"data.source={SOURCE_OF.get(form, form)}", f"data.root='{root}'", "data.valid_fraction=0",
         "data.min_size=16", "cache.shard_rows=64", *assignments],
    )  # fmt: skip
    folder = RunFolder(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Zeros)
        list(precompute(config, folder))
    rows = manifest(run)
    return Counter(status for _, status, _ in rows), rows


def images_of(root: Path, form: str, paths: list[str]) -> dict[str, bytes | UnusableImage]:
    """What a data set's source reads at these paths."""
    config = load_preset("shapes", [f"data.source={SOURCE_OF.get(form, form)}", f"data.root='{root}'"])
    return dict(open_source(config.data, root).read(paths))


def manifest(run: Path) -> list[tuple[str, str, str]]:
    """Source, status and error, empty where there is none, of every image and rejected record."""
    parts = f"{run}/cache/manifest/*.parquet"
    return duckdb.execute(
        "SELECT source, status, coalesce(error, '') FROM read_parquet(?, union_by_name=true) "
        "WHERE kind IN ('image', 'annotation', 'record') ORDER BY source, status",
        [parts],
    ).fetchall()


def images_in_manifest(run: Path) -> set[str]:
    """The images that lie on disk, as the manifest alone tells: whatever has been made of them, and once each."""
    found = duckdb.execute(
        "SELECT DISTINCT source FROM read_parquet(?, union_by_name=true) WHERE kind IN ('image', 'annotation') "
        "AND NOT starts_with(coalesce(error, ''), 'missing file')",
        [f"{run}/cache/manifest/*.parquet"],
    ).fetchall()
    return {source for (source,) in found}


def images_on_disk(root: Path) -> int:
    """How many image files, or what looks like one, lie below a folder or in its archives and tables.

    What is hidden is not opened: an archive counts once.
    """
    number, suffixes = 0, (*IMAGE_SUFFIXES, *map(str.lower, OTHER_FORMATS))
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            if any(part.startswith(".") for part in path.relative_to(root).parts):
                number += path.suffix.lower() in (*suffixes, ".tar", ".tgz", ".parquet")
            elif path.name.endswith((".tar", ".tar.gz", ".tgz")):
                with tarfile.open(path) as archive:
                    number += sum(Path(name).suffix.lower() in suffixes for name in set(archive.getnames()))
            elif path.suffix == ".parquet" and path.name != "metadata.parquet":
                rows = pq.read_table(path, columns=["image"])["image"].to_pylist()
                number += sum(bool(row["bytes"] if isinstance(row, dict) else row) for row in rows)
            else:
                nowhere = path.is_symlink() and path.readlink().name == "nowhere.jpg"
                number += path.suffix.lower() in suffixes and not nowhere
    return number


class Zeros:
    """Stands for `ConfiguredEncoders`."""

    def batch_size(self, resolution=None):
        return 64

    def __init__(self, encoders, model, device, resolutions) -> None:
        self.width, self.channels = model.caption_channels, model.in_channels

    def encode_texts(self, captions):
        return torch.zeros(len(captions), 2, self.width, dtype=torch.float16)

    def encode_pixels(self, resolution, pixels, noise):
        return torch.zeros(noise.shape, dtype=torch.float16)


def _folder(items, root):
    for item in items:
        write_image(root / item.name, item.image)
        if item.caption is not None:
            (root / item.name).with_suffix(".txt").write_bytes(text_of(item.caption))


def _metadata(items, root):
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for item in items:
        write_image(root / item.name, item.image)
        lines.append(line({"file_name": item.name}, item.caption, "text"))
    (root / "metadata.jsonl").write_bytes(b"\n".join(lines))


def _webdataset(items, root):
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "0.tar", "w") as archive:
        for item in items:
            member(archive, item.name, item.image)
            if item.caption is not None:
                member(archive, str(Path(item.name).with_suffix(".txt")), text_of(item.caption))


def _parquet(items, root):
    root.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": item.image if isinstance(item.image, bytes) else None, "path": None} for item in items]
    captions = pa.array([None if item.caption is None else text_of(item.caption) for item in items], pa.binary())
    table = pa.table({"image": images, "caption": captions.view(pa.string())})
    pq.write_table(table, root / "0.parquet")


def _coco(items, root):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    images, captions = [], []
    for number, item in enumerate(items):
        write_image(root / "val" / item.name, item.image)
        images.append(line({"id": number, "file_name": item.name}, None, ""))
        captions.append(line({"id": number, "image_id": number}, item.caption, "caption"))
    content = b'{"images": [' + b", ".join(images) + b'], "annotations": [' + b", ".join(captions) + b"]}"
    (root / "annotations" / "captions_val.json").write_bytes(content)


def _journeydb_lines(items, root):
    (root / ANNOTATIONS).parent.mkdir(parents=True, exist_ok=True)
    lines = [line({"img_path": f"./000/{item.name}"}, item.caption, "prompt") for item in items]
    (root / ANNOTATIONS).write_bytes(b"\n".join(lines) + b"\n")


def _journeydb(items, root):
    _journeydb_lines(items, root)
    for item in items:
        write_image(root / IMAGES / "000" / item.name, item.image)


def _journeydb_packed(items, root):
    _journeydb_lines(items, root)
    (root / IMAGES).mkdir(parents=True)
    with tarfile.open(root / IMAGES / "000.tgz", "w:gz") as archive:
        for item in items:
            member(archive, f"000/{item.name}", item.image)
