"""Archives that other bytes follow, and captions that may be in the lost end of one."""

import bz2
import gzip
import io
import lzma
import tarfile

import pytest

from lcm_distill.data.sources.journeydb import IMAGES
from tests.foreign import Item, encode, image_bytes, member, pack

ITEMS = [Item(f"{n}.bmp", image_bytes(n, "BMP"), f'"caption {n}"') for n in range(4)]
FOLLOWED = "damaged archive: more data after its end"


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_of_an_archive_that_bytes_follow_all_is_used_and_they_are_named_once(tmp_path, compress):
    """However it is compressed; zeros are padding, and what follows in another stream belongs to the archive."""
    root = tmp_path / "data"
    pack(ITEMS, root, "webdataset")
    archive = root / "0.tar"
    content = archive.read_bytes()
    archive.write_bytes(compress(content) + b"no part of it")
    counts, rows = encode(root, tmp_path / "run", "webdataset")
    assert counts == {"ok": 4, "quarantined": 1} and rows[0] == ("0.tar", "quarantined", FOLLOWED)
    archive.write_bytes(compress(content[:20_000]) + compress(content[20_000:]) + bytes(70_000))
    assert encode(root, tmp_path / "padded", "webdataset")[0] == {"ok": 4}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_bytes_after_an_archive_of_journeydb_cost_no_image(tmp_path, compress):
    root = tmp_path / "data"
    pack(ITEMS, root, "journeydb-packed")
    archive = root / IMAGES / "000.tgz"
    archive.write_bytes(compress(gzip.decompress(archive.read_bytes())) + b"no part of it")
    assert encode(root, tmp_path / "run", "journeydb-packed")[0] == {"ok": 4}


@pytest.mark.parametrize("captions_last", [False, True])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_caption_that_may_be_in_what_is_lost_is_of_a_damaged_archive(tmp_path, captions_last, compress):
    """The second image has none, whatever is lost; of the last, an object without text is there."""
    plain, root = io.BytesIO(), tmp_path / "data"
    root.mkdir()
    texts = {"0.txt": b"zero", "2.txt": b"two", "3.json": b"{}", "3.txt": b"x" * 100_000}
    names = [*(f"{n}.bmp" for n in range(4)), *texts]
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name in sorted(names, key=lambda name: (captions_last and name in texts, name)):
            member(archive, name, texts.get(name) or image_bytes(0, "BMP"))
    content = plain.getvalue()[:-60_000]  # within the last caption
    (root / "0.tar").write_bytes(content if compress is bytes else compress(content)[:-8])
    _, rows = encode(root, tmp_path / "run", "webdataset")
    (damage,) = {error for source, _, error in rows if source == "0.tar"}
    assert damage.startswith("damaged archive: ")
    assert [row for row in rows if row[0] != "0.tar"] == [
        ("0.tar/0.bmp", "ok", ""), ("0.tar/1.bmp", "quarantined", "malformed annotation: no txt"),
        ("0.tar/2.bmp", "ok", ""), ("0.tar/3.bmp", "quarantined", damage),
    ]  # fmt: skip
