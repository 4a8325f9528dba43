"""Every source gives the same images and captions, however the data set is packed."""

import io
import json
import tarfile
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lcm_distill.config import load_preset
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.sources.captions import choose_caption
from lcm_distill.data.sources.interface import UNNAMED, Annotation, BadAnnotation, LeftOut
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.data.sources.registry import SOURCES, open_source, source_root, source_type
from lcm_distill.formats.images import IMAGE_SUFFIXES, UnusableImage

CAPTIONS = [f"image {number}" for number in range(6)]


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


CONTENTS = [jpeg(number) for number in range(6)]


def pack(path, members: dict[str, bytes], mode: Literal["w", "w:gz"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def journeydb(root, lines=None, extracted=(), packed=(0, 1, 2), annotations_packed=True):
    """Two images a folder; the archive holds them in another order than the annotations."""
    records = [
        {"img_path": f"./{number // 2:03d}/{number}.jpg", "prompt": caption, "Task2": {"Caption": caption.upper()}}
        for number, caption in enumerate(CAPTIONS)
    ]
    text = "\n".join(lines or [json.dumps(record) for record in records]).encode() + b"\n"
    for folder in range(3):
        members = {f"{folder:03d}/{n}.jpg": CONTENTS[n] for n in (2 * folder + 1, 2 * folder)}
        if folder in packed:
            pack(root / IMAGES / f"{folder:03d}.tgz", members, "w:gz")
        if folder in extracted:
            for name, content in members.items():
                (root / IMAGES / name).parent.mkdir(parents=True, exist_ok=True)
                (root / IMAGES / name).write_bytes(content)
    if annotations_packed:
        pack(root / f"{ANNOTATIONS}.tgz", {"./train_anno.jsonl": text}, "w:gz")
    else:
        (root / ANNOTATIONS).parent.mkdir(parents=True, exist_ok=True)
        (root / ANNOTATIONS).write_bytes(text)
    return root


def webdataset(root):
    for half, numbers in (("a", range(3)), ("b", range(3, 6))):
        members = {}
        for n in numbers:
            members[f"set/{n}.jpg"] = CONTENTS[n]
            members[f"set/{n}.txt"] = CAPTIONS[n].encode()
        pack(root / f"{half}.tar", members, "w")
    return root


def parquet(root):
    root.mkdir(parents=True, exist_ok=True)
    for half, numbers in (("a", range(3)), ("b", range(3, 6))):
        images = [{"bytes": CONTENTS[n], "path": f"{n}.jpg"} for n in numbers]
        pq.write_table(
            pa.table({"image": images, "caption": CAPTIONS[numbers[0] : numbers[-1] + 1]}), root / f"{half}.parquet"
        )
    return root


def folder(root):
    for half, numbers in (("a", range(3)), ("b", range(3, 6))):
        (root / half).mkdir(parents=True)
        lines = []
        for n in numbers:
            (root / half / f"{n}.jpg").write_bytes(CONTENTS[n])
            lines.append(json.dumps({"file_name": f"{n}.jpg", "text": CAPTIONS[n]}))
        (root / half / "metadata.jsonl").write_text("\n".join(lines))
    return root


def folder_of_pairs(root):
    for n in range(6):
        image = root / str(n % 2) / f"{n}.x.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(CONTENTS[n])
        if n < 3:
            image.with_suffix(".txt").write_text(f"{CAPTIONS[n]}\n")
        else:
            image.with_suffix(".json").write_text(json.dumps({"text": CAPTIONS[n], "width": 40}))
    return root


def coco(root):
    (root / "annotations").mkdir(parents=True)
    (root / "val2014").mkdir()
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 40} for n in range(6)]
    second = [{"id": 100 + n, "image_id": n, "caption": "another"} for n in range(6)]
    first = [{"id": n, "image_id": n, "caption": CAPTIONS[n]} for n in range(6)]
    for n in range(6):
        (root / "val2014" / f"{n}.jpg").write_bytes(CONTENTS[n])
    content = {"images": images, "annotations": second + first}
    (root / "annotations" / "captions_val2014.json").write_text(json.dumps(content))
    return root


def source_of(name, root, *assignments):
    config = load_preset("shapes", [f"data.source={name}", f"data.root='{root}'", *assignments])
    return open_source(config.data, root)


def readable(source) -> list[Annotation]:
    return [record for record in source.annotations() if isinstance(record, Annotation)]


def pairs(source) -> dict[str, bytes]:
    """Caption -> image of everything that can be read."""
    annotations = readable(source)
    contents = dict(source.read([annotation.path for annotation in annotations]))
    return {annotation.caption: contents[annotation.path] for annotation in annotations}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("journeydb", journeydb),
        ("journeydb", lambda root: journeydb(root, extracted=(0, 1, 2), packed=(), annotations_packed=False)),
        ("journeydb", lambda root: journeydb(root, extracted=(1,), packed=(0, 2))),
        ("webdataset", webdataset),
        ("parquet", parquet),
        ("folder", folder),
        ("folder", folder_of_pairs),
        ("coco", coco),
    ],
)
def test_every_source_hands_over_the_same(tmp_path, name, make):
    source = source_of(name, make(tmp_path / "set"))
    assert pairs(source) == dict(zip(CAPTIONS, CONTENTS, strict=True))
    identities = [record.sample_id for record in readable(source)]
    assert len(set(identities)) == 6
    paths = [record.path for record in readable(source)]
    assert all(source.file_of(path).is_file() for path in paths)
    some = paths[1:5:3]
    assert {path for path, _ in source.read(some)} == set(some)


@pytest.mark.parametrize("name", ["journeydb", "webdataset", "parquet", "folder", "coco"])
def test_an_empty_folder_says_what_was_looked_for(tmp_path, name):
    with pytest.raises(UserError, match=r"set data\.root to"):
        list(source_of(name, tmp_path).annotations())


def test_chosen_archives(tmp_path):
    source = source_of("journeydb", journeydb(tmp_path), "data.archives='000,2-7'")
    assert list(pairs(source)) == [CAPTIONS[n] for n in (0, 1, 4, 5)]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.archives='1-'", "data.archives = '1-'"),
        ("data.captions={prompt=0}", "data.captions.prompt = 0"),
    ],
)
def test_wrong_choices_are_refused(assignment, message):
    with pytest.raises(UserError, match=message):
        load_preset("shapes", ["data.source=journeydb", "data.archives='0'", assignment])


def test_streamed_archive_keeps_what_lies_before_the_damage(tmp_path):
    root = journeydb(tmp_path)
    archive = root / IMAGES / "001.tgz"
    plain = tmp_path / "plain.tar"
    pack(plain, {"001/3.jpg": CONTENTS[3], "001/2.jpg": CONTENTS[2]}, "w")
    archive.write_bytes(plain.read_bytes()[: 512 + len(CONTENTS[3]) + 900])
    (root / IMAGES / "002.tgz").unlink()
    source = source_of("journeydb", root)
    contents = dict(source.read([record.path for record in readable(source)]))
    assert contents[f"{IMAGES}/001/3.jpg"] == CONTENTS[3]
    reasons = {path[-9:]: str(content) for path, content in contents.items() if isinstance(content, UnusableImage)}
    assert reasons.pop("001/2.jpg").startswith("damaged archive 001.tgz")
    assert reasons == {"002/4.jpg": "missing file", "002/5.jpg": "missing file"}


def test_damaged_annotation_archive_is_an_error(tmp_path):
    root = journeydb(tmp_path)
    path = root / f"{ANNOTATIONS}.tgz"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    with pytest.raises(DataError, match="download it again"):
        list(source_of("journeydb", root).annotations())
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    with pytest.raises(DataError, match=r"CRC check failed.*download it again"):
        list(source_of("journeydb", root).annotations())


def test_bad_records_are_handed_over_with_their_reason(tmp_path):
    lines = [
        "{broken",
        '{"prompt": "x"}',
        '{"img_path": "./000/a.jpg"}',
        '{"img_path": "../b.jpg", "prompt": "x"}',
        "[]",
    ]
    records = list(source_of("journeydb", journeydb(tmp_path, lines)).annotations())
    bad = [record for record in records if isinstance(record, BadAnnotation)]
    assert records[len(bad) :] == [LeftOut(f"{IMAGES}/{n:03d}.tgz", f"archive {UNNAMED}", image=False) for n in (1, 2)]
    reasons = [record.error.removeprefix("malformed annotation: ") for record in bad]
    assert reasons[0].startswith("not JSON") and reasons[1:3] == ["no img_path", "no prompt"]
    assert reasons[3].endswith("leaves data/train/imgs") and reasons[4] == "not a JSON object but a list"
    assert bad[4].source == f"{ANNOTATIONS}:5"


def test_a_image_without_words_is_left_out(tmp_path):
    root = folder_of_pairs(tmp_path)
    (root / "0/2.x.txt").unlink()
    (root / "1/5.x.json").write_text("{broken")
    bad = [record for record in source_of("folder", root).annotations() if isinstance(record, BadAnnotation)]
    assert bad[0] == BadAnnotation("0/2.x.jpg", "malformed annotation: no text", "0/2.x.jpg")
    assert bad[1].source == "1/5.x.jpg"
    assert bad[1].error.startswith("malformed annotation: its .json is unusable: not JSON (Expecting property name")


def test_captions_come_by_share_and_stay_with_their_sample():
    record = {"prompt": "p", "Task2": {"Caption": "c"}}
    shares = {"prompt": 3.0, "Task2.Caption": 1.0}
    drawn = [choose_caption(record, shares, f"sample {number}") for number in range(4_000)]
    assert drawn.count("c") == pytest.approx(1_000, abs=120)  # four standard deviations
    assert drawn == [choose_caption(record, shares, f"sample {number}") for number in range(4_000)]


def test_missing_field_gives_way_to_the_next():
    shares = {"prompt": 1.0, "Task2.Caption": 1e9}
    assert choose_caption({"prompt": " p "}, shares, "x") == "p"
    assert choose_caption({"prompt": "p", "Task2": None}, shares, "x") == "p"
    with pytest.raises(ValueError, match=r"no prompt or Task2\.Caption"):
        choose_caption({"prompt": "", "Task2": {}}, shares, "x")


@pytest.mark.parametrize("name", SOURCES)
def test_the_configuration_accepts_what_a_source_has(tmp_path, name):
    """Archives, captions and the absence of a root, by the traits in the registry."""
    found = SOURCES[name]
    for assignment, accepted in (
        ("data.archives='0'", found.numbered_archives),
        ("data.captions={x=1}", found.captions),
    ):
        if accepted:
            assert source_of(name, tmp_path, assignment)
        else:
            with pytest.raises(UserError, match=f"(archives|captions) = .*{name}"):
                source_of(name, tmp_path, assignment)
    data = load_preset("shapes", [f"data.source={name}"]).data
    if found.needs_root:
        with pytest.raises(UserError, match=f"folder of your data set \\(data.source = '{name}'\\)"):
            source_root(data, tmp_path)
    else:
        assert source_root(data, tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [({"source": "elsewhere"}, "write one of shapes, journeydb"), ({"archives": "0"}, "has no numbered archives"),
     ({"source": "coco", "captions": {"x": 1.0}}, "has captions of its own: unset it, and leave --caption-column out")],
)  # fmt: skip
def test_a_source_refuses_choices_it_does_not_have(change, message):
    data = load_preset("shapes").data.model_copy(update=change)
    with pytest.raises(UserError, match=message):
        source_type(data)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_kind_of_image_file_is_found_in_folders_and_archives(tmp_path, suffix):
    for name, root in (("folder", tmp_path / "folder"), ("webdataset", tmp_path / "archives")):
        members = {f"a{suffix}": b"image", "a.txt": b"caption"}
        if name == "folder":
            root.mkdir()
            for member, content in members.items():
                (root / member).write_bytes(content)
        else:
            pack(root / "a.tar", members, "w")
        assert [record.caption for record in readable(source_of(name, root))] == ["caption"]
