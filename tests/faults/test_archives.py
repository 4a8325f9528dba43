"""Damaged archives and tables, and archives with traps: named, quarantined, and nothing outside is touched."""

import bz2
import gzip
import io
import tarfile
import zlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.data.sources.journeydb import IMAGES
from lcm_distill.formats.tars import MAX_HEADER_BYTES
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.precompute import precompute
from tests.foreign import SOURCE_OF, Item, Zeros, encode, image_bytes, images_of, manifest, member, pack

NUMBER = 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set of every form that is archives or tables, with the path of the file that is damaged."""
    items = [Item(f"{n:03d}.jpg", image_bytes(n), f'"caption {n}"') for n in range(NUMBER)]
    files = {
        "journeydb-packed": f"{IMAGES}/000.tgz",
        "webdataset": "0.tar",
        "webdataset-packed": "0.tar",
        "parquet": "0.parquet",
    }
    made = {}
    for form, name in files.items():
        root = tmp_path_factory.mktemp(form)
        pack(items, root, form.removesuffix("-packed") if form == "webdataset-packed" else form)
        if form == "webdataset-packed":
            (root / name).write_bytes(gzip.compress((root / name).read_bytes()))
        if form == "parquet":  # in several row groups, as large files are
            pq.write_table(pq.read_table(root / name), root / name, row_group_size=10)
        made[form] = root, name
    return made


def copy_damaged(root, name, target, damage):
    for path in root.rglob("*"):
        if path.is_file():
            copied = target / path.relative_to(root)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    path = target / name
    path.write_bytes(damage(path.read_bytes()))


def damage_of(random: np.random.Generator):
    """A change of a file: one bit or some bytes flipped in one place, or cut off."""

    def change(content: bytes) -> bytes:
        place = int(random.integers(20, len(content) - 8))
        if random.random() < 0.3:
            return content[:place]
        if random.random() < 0.5:
            return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]
        return content[:place] + bytes(random.integers(0, 256, 8, np.uint8)) + content[place + 8 :]

    return change


@pytest.mark.trials(full=120, sample=8)
def test_damaged_archives_and_tables(trials, whole, tmp_path):
    """A .tgz, .tar or .parquet with flipped or missing bytes beside a whole one: what is lost says "damaged".

    What is used is what it was, where checksums can tell: a plain .tar has none of its images, and a .parquet none of
    the ten of a row group.
    """
    for trial in trials:
        form = list(whole)[trial % len(whole)]
        root, name = whole[form]
        target = tmp_path / str(trial)
        copy_damaged(root, name, target / "data", damage_of(trials.random))
        if form != "journeydb-packed":
            second = (target / "data" / name).with_stem("1")
            second.write_bytes((root / name).read_bytes())
        else:
            second = None
        try:
            counts, rows = encode(target / "data", target / "run", form)
        except UserError as error:
            assert second is None and "could be used" in str(error), repr(error)
            trials.count("nothing left")
            continue
        assert counts["ok"] >= (NUMBER if second else 1)
        reasons = {error for _, status, error in rows if status == "quarantined"}
        assert not any("missing file" in reason for reason in reasons), reasons
        original = {path: f"0{path[1:]}" if second else path for path, status, _ in rows if status == "ok"}
        now = images_of(target / "data", form, list(original))
        before = images_of(root, form, list(dict.fromkeys(original.values())))
        other = sum(now[path] != before[where] for path, where in original.items())
        assert other <= {"webdataset": 2, "parquet": 10}.get(form, 0), (form, other)
        lost = counts["ok"] < (2 * NUMBER if second else NUMBER)
        damaged = any(
            word in reason for reason in reasons for word in ("damaged", "unreadable", "not an image", "caption")
        )
        assert damaged or not lost, (form, reasons)
        trials.count("lost records, with the reason" if lost else "nothing lost")


def test_flipped_bytes_in_the_middle_are_not_missing_files(whole, tmp_path):
    """Both where the compressed stream breaks and where it gives garbage in place of a header."""
    root, name = whole["journeydb-packed"]

    def break_a_header(content: bytes) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            start = archive.getmembers()[10].offset
        plain = bytearray(gzip.decompress(content))
        plain[start + 5] ^= 0xFF
        return gzip.compress(bytes(plain))

    copy_damaged(root, name, tmp_path / "data", break_a_header)
    counts, rows = encode(tmp_path / "data", tmp_path / "run", "journeydb-packed")
    assert counts == {"ok": 10, "quarantined": 30}
    assert {error for _, status, error in rows if status == "quarantined"} == {"damaged archive 000.tgz: bad checksum"}


@pytest.mark.parametrize("form", ["journeydb-packed", "webdataset-packed"])
def test_of_a_compressed_archive_that_is_cut_off_what_precedes_is_used(whole, tmp_path, form):
    """As `tar` extracts it; the rest once it is whole."""
    root, name = whole[form]
    copy_damaged(root, name, tmp_path / "data", lambda content: content[: len(content) // 2])
    counts, rows = encode(tmp_path / "data", tmp_path / "run", form)
    assert 10 < counts["ok"] < 30
    used = [path for path, status, _ in rows if status == "ok"]
    assert images_of(tmp_path / "data", form, used) == images_of(root, form, used)
    size = (tmp_path / "data" / name).stat().st_size
    cut = f"cut off after {size:,} bytes, of which what is whole is used: download it again"
    reasons = {error for _, status, error in rows if status == "quarantined"}
    assert reasons and all(cut in reason for reason in reasons), reasons
    copy_damaged(root, name, tmp_path / "data", lambda content: content)
    if form == "journeydb-packed":  # whose records are all known
        assert encode(tmp_path / "data", tmp_path / "again", form)[0] == {"ok": NUMBER}


def broken_archive(form: str, compression: str) -> tuple[bytes, bytes]:
    """An archive of ten images of 480 kB with captions, and the same damaged from the seventh image on."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for n in range(10):
            folder = "000/" if form == "journeydb-packed" else ""
            member(archive, f"{folder}{n}.bmp", image_bytes(n, "BMP", (400, 400)))
            member(archive, f"{folder}{n}.txt", f"caption {n}".encode())
    content, place = plain.getvalue(), 7 * (400 * 400 * 3 + 1024 + 1024)
    if compression == "bz2":
        whole = bz2.compress(content)
        start = len(bz2.compress(content[:place]))
        return whole, whole[:start] + bytes(100) + whole[start + 100 :]
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(content[:place]) + packer.flush(zlib.Z_FULL_FLUSH)  # which ends at a whole byte
    rest = packer.compress(content[place:]) + packer.flush()
    return first + rest, first + b"\xff" + rest[1:]  # a block of a type that there is not


@pytest.mark.parametrize("compression", ["gz", "bz2"])
@pytest.mark.parametrize("form", ["journeydb-packed", "webdataset"])
def test_members_well_before_the_place_where_decompression_fails_are_used(tmp_path, form, compression):
    """What ends 1 MiB before it, which is in the seventh image; of bzip2, somewhere in its block of 900 kB."""
    root, packed = tmp_path / "data", form == "journeydb-packed"
    pack([Item(f"{n}.bmp", b"", f'"caption {n}"') for n in range(10)], root, form)
    path = root / (f"{IMAGES}/000.tgz" if packed else "0.tar")
    whole, damaged = broken_archive(form, compression)
    path.write_bytes(damaged)
    counts, rows = encode(root, tmp_path / "run", form, "cache.shard_rows=2")
    used = counts["ok"]
    assert used == 4 if compression == "gz" else 3 <= used <= 5
    names = [f"{IMAGES}/000/{n}.bmp" if packed else f"0.tar/{n}.bmp" for n in range(used)]
    assert [source for source, status, _ in rows if status == "ok"] == names
    read = images_of(root, form, names)
    assert read == {name: image_bytes(n, "BMP", (400, 400)) for n, name in enumerate(names)}
    assert counts == {"ok": used, "quarantined": 10 - used if packed else 1}
    error = "invalid block type" if compression == "gz" else "Invalid data stream"
    reasons = {error for _, status, error in rows if status == "quarantined"}
    assert len(reasons) == 1 and f"{error}: download it again; what ends before is used" in reasons.pop()
    assert encode(root, tmp_path / "again", form) == (counts, rows)
    path.write_bytes(whole)
    encode(root, tmp_path / "run", form, "cache.shard_rows=2")
    assert withdrawn(root, tmp_path / "run", form) == 10


def withdrawn(root, run, form) -> int:
    """How many images are usable once quarantined ones have been tried again."""
    config = load_preset("shapes", [f"data.source={SOURCE_OF.get(form, form)}", f"data.root='{root}'",
                                    "data.valid_fraction=0", "data.min_size=16", "cache.shard_rows=2"])  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Zeros)
        list(precompute(config, RunFolder(run), retry_quarantined=True))
    return Counter(status for _, status, _ in manifest(run))["ok"]


def test_of_a_compressed_archive_whose_checksum_fails_nothing_is_used(whole, tmp_path):
    """Nothing tells where it is damaged."""
    root, name = whole["journeydb-packed"]

    def flip(content: bytes) -> bytes:
        place = len(content) - 5  # in the checksum
        return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]

    copy_damaged(root, name, tmp_path / "data", flip)
    with pytest.raises(UserError, match="could be used"):
        encode(tmp_path / "data", tmp_path / "run", "journeydb-packed")


def test_damage_beyond_the_end_mark_is_seen(whole, tmp_path):
    """A header that is all zeros ends an archive for tar itself."""
    root, name = whole["webdataset"]

    def blank_a_header(content: bytes) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            start = archive.getmembers()[20].offset
        return content[:start] + bytes(512) + content[start + 512 :]

    copy_damaged(root, name, tmp_path / "data", blank_a_header)
    counts, rows = encode(tmp_path / "data", tmp_path / "run", "webdataset")
    assert counts == {"ok": 10, "quarantined": 1}
    assert rows[0] == ("0.tar", "quarantined", "damaged archive: more data after its end")


def test_a_truncated_table_is_named(whole, tmp_path):
    root, name = whole["parquet"]
    copy_damaged(root, name, tmp_path / "data", lambda content: content[: len(content) // 2])
    (tmp_path / "data" / "whole.parquet").write_bytes((root / name).read_bytes())
    counts, rows = encode(tmp_path / "data", tmp_path / "run", "parquet")
    assert counts == {"ok": NUMBER, "quarantined": 1}
    assert rows[0][0] == "0.parquet" and "damaged file 0.parquet: Parquet magic bytes not found" in rows[0][2]


def test_members_that_lead_out_and_members_that_are_no_files(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "0.tar", "w") as archive:
        names = (
            "good.jpg",
            "../up.jpg",
            "a/../../up.jpg",
            "/etc/root.jpg",
            "link.jpg",
            "pipe.jpg",
            "device.jpg",
            "._a.jpg",
        )
        kinds = {"link.jpg": "broken link", "pipe.jpg": "fifo", "device.jpg": "device"}
        for n, name in enumerate(names):
            image = kinds.get(name, image_bytes(n))
            member(archive, name, image)
            member(archive, name.replace(".jpg", ".txt"), f"caption {n}".encode())
    before = sorted(tmp_path.rglob("*"))
    counts, rows = encode(root, tmp_path / "run", "webdataset")
    assert [path for path in sorted(tmp_path.rglob("*")) if (tmp_path / "run") not in (path, *path.parents)] == before
    assert counts == {"ok": 1, "quarantined": 6, "left out": 1}
    reasons = {source: error for source, status, error in rows if status == "quarantined"}
    assert sum("leads out of the archive" in error for error in reasons.values()) == 3
    assert reasons["0.tar/device.jpg"] == "a link or device in its archive, not a file"


def test_an_extended_header_that_fills_the_memory_is_refused(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "0.tar", "w") as archive:
        member(archive, "0.jpg", image_bytes(0))
        member(archive, "0.txt", b"caption")
        bomb = tarfile.TarInfo("x" * (MAX_HEADER_BYTES + 10) + ".jpg")
        archive.addfile(bomb)
    counts, rows = encode(root, tmp_path / "run", "webdataset")
    assert counts == {"ok": 1, "quarantined": 1} and "an extended header of 1,048" in rows[0][2]


def test_a_table_without_captions_beside_one_with_captions(whole, tmp_path):
    root, name = whole["parquet"]
    copy_damaged(root, name, tmp_path / "data", lambda content: content)
    pq.write_table(pa.table({"figures": [1, 2]}), tmp_path / "data" / "statistics.parquet")
    counts, rows = encode(tmp_path / "data", tmp_path / "run", "parquet")
    assert counts == {"ok": NUMBER, "quarantined": 1}
    assert rows[-1][0] == "statistics.parquet" and "has 0 columns of bytes" in rows[-1][2]
