"""What is read of each layout: names, encodings, links, metadata files, lists of captions, damaged archives."""

import gzip
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lcm_distill.data.sources.captions import choose_caption
from lcm_distill.data.sources.interface import ORPHAN, Annotation, BadAnnotation, LeftOut
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.data.sources.record_validation import checked
from lcm_distill.formats.images import UnusableImage
from tests.data.test_sources import source_of
from tests.foreign import Item, image_bytes, member, pack, write_image


def records_of(name: str, root: Path, *assignments: str) -> dict[str, str]:
    """Caption, or reason, by the path of every record."""
    found = {}
    for record in checked(source_of(name, root, *assignments)):
        match record:
            case Annotation():
                found[record.path] = record.caption
            case BadAnnotation(source, error):
                found[source] = f"bad: {error}"
            case LeftOut(source, reason):
                found[source] = f"left out: {reason}"
    return found


def contents_of(name: str, root: Path) -> dict[str, bytes | UnusableImage]:
    source = source_of(name, root)
    return dict(source.read([it.path for it in checked(source) if isinstance(it, Annotation)]))


def tar(path: Path, *members: tuple[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    modes: dict[str, Any] = {".tar": "w", ".bz2": "w:bz2", ".txz": "w:xz"}
    with tarfile.open(path, modes.get(path.suffix.lower(), "w:gz")) as archive:
        for name, content in members:
            member(archive, name, content)


# Names in archives


def test_of_members_of_one_name_the_last_counts_of_image_and_caption(tmp_path):
    """As when they are extracted."""
    red, blue = image_bytes(1), image_bytes(2)
    tar(tmp_path / "a.tar", ("1.png", red), ("1.txt", b"red"), ("1.png", blue), ("1.txt", b"blue"), ("2.png", red),
        ("2.txt", b"red"))  # fmt: skip
    assert records_of("webdataset", tmp_path) == {"a.tar/1.png//2": "blue", "a.tar/2.png": "red"}
    assert contents_of("webdataset", tmp_path) == {"a.tar/1.png//2": blue, "a.tar/2.png": red}


@pytest.mark.parametrize("cut", [None, "plain", "compressed"])
def test_of_images_of_one_name_in_an_archive_of_journeydb_the_last_counts(tmp_path, cut):
    """Of one that is cut short the last that can be read."""
    red, blue, end = image_bytes(1), image_bytes(2), image_bytes(3, size=(256, 256))
    pack([Item(f"{n}.jpg", red, '"a caption"') for n in range(2)], tmp_path, "journeydb-packed")
    whole = tmp_path / IMAGES / "000.tgz"
    tar(whole, ("000/0.jpg", red), ("000/1.jpg", red), ("./000/0.jpg", blue), ("000/0.jpg", end))
    if cut == "plain":
        whole.write_bytes(gzip.decompress(whole.read_bytes()))
    if cut:
        whole.write_bytes(whole.read_bytes()[: -len(end) // 2 - (tarfile.RECORDSIZE if cut == "plain" else 0)])
    contents = contents_of("journeydb", tmp_path)
    expected = blue if cut else end
    assert contents == {f"{IMAGES}/000/0.jpg": expected, f"{IMAGES}/000/1.jpg": red}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".TAR", ".tar.bz2", ".txz"])
def test_archives_of_a_webdataset_may_be_called_compressed(tmp_path, suffix):
    """Folders and members may be called as archives are; of members of one name the last counts."""
    red, blue = image_bytes(1), image_bytes(2)
    members = ("a.tar/1.jpg", red), ("b.tgz/2.jpg", red), ("b.tgz/2.jpg", blue), ("a.tar/1.txt", b"one")
    tar(tmp_path / "sets.tar" / f"0{suffix}", *members)
    (tmp_path / "sets.tar" / "0_more.json").write_text('{"2": {"txt": "two"}}')
    place = f"sets.tar/0{suffix}"
    assert records_of("webdataset", tmp_path) == {f"{place}/a.tar/1.jpg": "one", f"{place}/b.tgz/2.jpg//2": "two"}
    assert contents_of("webdataset", tmp_path) == {f"{place}/a.tar/1.jpg": red, f"{place}/b.tgz/2.jpg//2": blue}
    source = source_of("webdataset", tmp_path)
    assert source.file_of(f"{place}/b.tgz/2.jpg//2") == tmp_path / place


@pytest.mark.parametrize("name", ["webdataset", "folder"])
def test_two_images_of_one_stem_are_two_samples(tmp_path, name):
    members = ("1.jpg", image_bytes(1)), ("1.png", image_bytes(2, "PNG")), ("1.txt", b"both")
    if name == "webdataset":
        tar(tmp_path / "a.tar", *members)
    else:
        for file, content in members:
            (tmp_path / file).write_bytes(content)
    assert list(records_of(name, tmp_path).values()) == ["both", "both"]
    assert set(contents_of(name, tmp_path).values()) == {members[0][1], members[1][1]}
    records = [record for record in source_of(name, tmp_path).annotations() if isinstance(record, Annotation)]
    assert len({record.sample_id for record in records}) == 2


@pytest.mark.parametrize("name", ["journeydb", "coco"])
def test_images_with_one_identifier_are_samples_of_their_own(tmp_path, name):
    """The first keeps it, as caches have it; others are identified by their paths. A second line is no second image."""
    names = ("0/x.jpg", "0/x.png", "1/x.jpg", "0/x.png", "0/y.jpg")
    if name == "coco":
        images = [{"id": 1 if "x" in path else 2, "file_name": path} for path in names]
        content = {"images": images, "annotations": [{"id": n, "image_id": n, "caption": "c"} for n in (1, 2)]}
        path, place, keys = tmp_path / "annotations" / "captions_val.json", "val", ["val/1", "val/2"]
        lines = json.dumps(content)
    else:
        path, place, keys = tmp_path / ANNOTATIONS, IMAGES, ["x", "y"]
        lines = "\n".join(json.dumps({"img_path": f"./{path}", "prompt": "c"}) for path in ("0/x.gif", *names))
        lines = lines.replace('"c"', '" "', 1)  # without a caption it is no sample, and has no identifier
    path.parent.mkdir(parents=True)
    path.write_text(lines)
    found = [it for it in checked(source_of(name, tmp_path)) if isinstance(it, Annotation)]
    again = [names[3]] if name == "journeydb" else []  # of which it keeps nothing: the catalog finds it
    assert [it.path for it in found] == [f"{place}/{path}" for path in (*names[:3], *again, names[4])]
    later = [f"{place}/{path}" for path in (*names[1:3], *again)]
    assert [it.sample_id for it in found] == [keys[0], *later, keys[1]]


def test_names_with_dots_and_other_endings_in_archives(tmp_path):
    tar(tmp_path / "a.tar", ("22.05.png", b"1"), ("22.05.txt", b"five"), ("22.06.png", b"2"), ("22.06.txt", b"six"),
        ("s0.input.jpg", b"3"), ("s0.txt", b"short"), ("d.v1/7.img", b"4"), ("d.v1/7.cap", b"cap"), ("8.gif", b"5"),
        ("8.json", b'{"txt": "json"}'), ("9.BMP", b"6"), ("9.caption", b"bmp"), ("10.tiff", b"7"),
        ("11.txt", b"lone"))  # fmt: skip
    assert records_of("webdataset", tmp_path) == {
        "a.tar/22.05.png": "five", "a.tar/22.06.png": "six", "a.tar/s0.input.jpg": "short", "a.tar/d.v1/7.img": "cap",
        "a.tar/8.gif": "json", "a.tar/9.BMP": "bmp", "a.tar/10.tiff": "bad: malformed annotation: no txt",
        "a.tar/11.txt": f"left out: {ORPHAN}",
    }  # fmt: skip


def test_json_beside_an_archive_has_captions_by_the_names_of_images(tmp_path):
    names = ("sub/a.jpg", "b.jpg", "c.jpg", "d.jpg")
    tar(tmp_path / "0.tar", *((name, b"") for name in names), ("b.json", b'{"caption": "its own"}'))
    (tmp_path / "0.json").write_text('{"a": {"caption": "by its name"}, "b": {"caption": "x"}, "c": 3, "d": "text"}')
    (tmp_path / "0_second.json").write_text('{"c": {"caption": "from the second"}}')
    (tmp_path / "0_third.json").write_text("{broken")
    (tmp_path / "00.json").write_text('{"d": {"caption": "of another archive"}}')
    found = records_of("webdataset", tmp_path, "data.captions={caption=1, txt=1e-9}")
    assert found.pop("0_third.json").startswith("bad: damaged file: not JSON")
    assert found == dict(
        zip((f"0.tar/{name}" for name in names), ("by its name", "its own", "from the second", "text"), strict=True)
    )


def test_json_beside_archives_is_that_of_the_longest_name_that_fits(tmp_path):
    archives = ("train.tar", "train_hq.tgz", "train_hq_1.TAR", "sub/train.tar")
    for archive in archives:
        tar(tmp_path / archive, ("a.jpg", b""))
    (tmp_path / "train_zip.zip").write_bytes(b"")
    (tmp_path / "train_x").mkdir()
    for name in ("train.json", "train_hq_more.json", "train_hq_1.json", "train_zip.json", "train_x/b.json",
                 "sub/train_more.json"):  # fmt: skip
        (tmp_path / name).write_text(json.dumps({"a": name}))
    assert records_of("webdataset", tmp_path) == {
        "train.tar/a.jpg": "train.json", "train_hq.tgz/a.jpg": "train_hq_more.json",
        "train_hq_1.TAR/a.jpg": "train_hq_1.json", "sub/train.tar/a.jpg": "sub/train_more.json",
        "train_zip.zip": "left out: archive of a kind that is not read",
    }  # fmt: skip


@pytest.mark.parametrize("scores", ["0_long_clip_score.json", "0_long_quality.json"])
@pytest.mark.parametrize("kind", [str, float])
def test_scores_beside_an_archive_are_no_captions(tmp_path, scores, kind):
    """Sana's layout: captions and their scores have fields of the same names, in files beside an archive."""
    tar(tmp_path / "0.tar", *((f"{n}.jpg", b"") for n in range(4)), ("2.json", b'{"long": "its own"}'))
    (tmp_path / "0_long.json").write_text('{"0": {"long": "a long caption"}, "1": {"long": "1984"}}')
    numbers = {str(n): {"long": kind(number)} for n, number in enumerate((27.1037, "nan", 3e-05, 25))}
    (tmp_path / scores).write_text(json.dumps(numbers))
    assert records_of("webdataset", tmp_path, "data.captions={long=1}") == {
        "0.tar/0.jpg": "a long caption", "0.tar/1.jpg": "1984", "0.tar/2.jpg": "its own",
        "0.tar/3.jpg": "bad: malformed annotation: no long",
    }  # fmt: skip


def test_an_archive_that_is_extracted_in_part_gives_the_rest(tmp_path):
    made = [Item(f"{n}.jpg", image_bytes(n), f'"caption {n}"') for n in range(4)]
    pack(made, tmp_path, "journeydb-packed")
    write_image(tmp_path / IMAGES / "000" / "2.jpg", image_bytes(2))
    contents = contents_of("journeydb", tmp_path)
    assert [contents[f"{IMAGES}/000/{n}.jpg"] for n in range(4)] == [image_bytes(n) for n in range(4)]
    source = source_of("journeydb", tmp_path)
    assert [source.file_of(f"{IMAGES}/000/{n}.jpg").name for n in (1, 2)] == ["000.tgz", "2.jpg"]


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_captions_in_marked_encodings_are_read(tmp_path, encoding):
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "a.txt").write_bytes(mark + "un café, 图\n".encode(encoding))
    lines = json.dumps({"file_name": "b.jpg", "text": "un café, 图"}, ensure_ascii=False) + "\n"
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "metadata.jsonl").write_bytes(mark + (lines * 1).encode(encoding))
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metadata.csv").write_bytes(mark + 'file_name,text\nc.jpg,"un café, 图"\n'.encode(encoding))
    assert records_of("folder", tmp_path) == {
        "a.jpg": "un café, 图", "lines/b.jpg": "un café, 图", "csv/c.jpg": "un café, 图",
    }  # fmt: skip


def test_other_bytes_are_refused_with_their_position(tmp_path):
    for name, content in {
        "latin": "un café".encode("latin-1"), "mark": b"\xef\xbb\xbf", "mark16": b"\xff\xfe", "odd": b"\xff\xfea",
        "unmarked": "un café".encode("utf-16-le"),
    }.items():  # fmt: skip
        (tmp_path / f"{name}.jpg").write_bytes(b"")
        (tmp_path / f"{name}.txt").write_bytes(content)
    found = {
        name: text.removeprefix("bad: malformed annotation: ") for name, text in records_of("folder", tmp_path).items()
    }
    assert found["latin.jpg"] == "its .txt is unusable: not UTF-8: byte 0xe9 at position 6"
    assert found["mark.jpg"] == found["mark16.jpg"] == "no text"
    assert found["odd.jpg"] == "its .txt is unusable: not UTF-16: byte 0x61 at position 2"
    assert found["unmarked.jpg"] == "its .txt is unusable: not UTF-8: byte 0xe9 at position 12"


def test_one_of_a_list_of_captions_is_drawn_by_the_name():
    record = {"text": ["one", " two ", "", None, 3]}
    drawn = Counter(choose_caption(record, {"text": 1.0}, f"sample {n}") for n in range(2_000))
    assert set(drawn) == {"one", "two"} and abs(drawn["one"] - 1_000) < 100
    assert choose_caption({"en.long": "dotted", "en": {"long": "nested"}}, {"en.long": 1.0}, "x") == "dotted"
    assert choose_caption({"en": {"long": "nested"}}, {"en.long": 1.0}, "x") == "nested"


@pytest.mark.parametrize("name", ["folder", "coco", "webdataset", "parquet", "journeydb"])
def test_marks_within_text_are_no_part_of_a_caption(tmp_path, name):
    """Byte order marks that other tools leave at the ends of values; one alone is no caption."""
    texts = ['"\\ufeff a red\\ufeff"', '" \\ufeff \\ufeff"', '"a\\ufeffb"']
    pack([Item(f"{n}.jpg", b"", text) for n, text in enumerate(texts)], tmp_path, name)
    captions = [record for record in source_of(name, tmp_path).annotations() if isinstance(record, Annotation)]
    assert [record.caption for record in captions] == ["a red", "a\ufeffb"]


# Archives


def test_compressed_archives_are_read_and_their_checksums_count(tmp_path):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in (("a.jpg", image_bytes(0)), ("a.txt", b"caption"), ("z.txt", b"lone")):
            member(archive, name, content)
    packed = bytearray(gzip.compress(plain.getvalue()))
    (tmp_path / "a.tar").write_bytes(packed)
    assert records_of("webdataset", tmp_path)["a.tar/a.jpg"] == "caption"
    packed[-6] ^= 1
    (tmp_path / "a.tar").write_bytes(packed)
    found = records_of("webdataset", tmp_path)
    assert set(found) == {"a.tar"} and "damaged archive: CRC check failed" in found["a.tar"]
    (content,) = dict(source_of("webdataset", tmp_path).read(["a.tar/a.jpg"])).values()
    assert "damaged archive a.tar: CRC check failed" in str(content)
