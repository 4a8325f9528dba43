"""What `lcm precompute --dry-run` and `lcm status` say of a data set, and what is said where there is none."""

import json
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms

from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.data.sources import registry
from lcm_distill.data.sources.interface import ORPHAN, UNNAMED
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.data.sources.record_validation import without_details
from lcm_distill.data.sources.registry import open_source
from lcm_distill.data.survey import survey
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.report import report
from lcm_distill.stages.status import status as status_of
from tests.command_line import lcm, shapes
from tests.data.test_source_contract import add_left_out, tree_of
from tests.data.test_sources import source_of
from tests.foreign import SOURCE_OF, SOURCES, Item, Zeros, encode, image_bytes, images_on_disk, member, pack

HUB = [("bytes", pa.binary()), ("path", pa.string())]


def data_set(root):
    """Five pairs, one of a small image; three images without text, two captions without an image, two hidden images."""
    root.mkdir()
    for n in range(4):
        (root / f"{n}.jpg").write_bytes(image_bytes(n, size=(64 + n, 64)))
        (root / f"{n}.txt").write_text(f"caption {n % 2}")
    Image.new("RGB", (100, 10)).save(root / "small.png")
    (root / "small.txt").write_text("small")
    for n in range(3):
        (root / f"silent-{n}.gif").write_bytes(image_bytes(n, "GIF"))
    for name in ("lone-a.txt", "lone-b.caption"):
        (root / name).write_text("lone")
    for name in ("._0.jpg", "._1.jpg"):
        (root / name).write_bytes(b"")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    Image.new("RGB", (64, 64)).save(root / "3.jpg", icc_profile=profile)
    return root


def test_a_survey_counts_pairs_orphans_sizes_and_what_would_be_quarantined(tmp_path):
    found = survey(source_of("folder", data_set(tmp_path / "data")), 64)
    assert (found["pairs"], found["captions"], found["images"], found["captions_without_an_image"]) == (5, 3, 10, 2)
    assert found["quarantined"] == {
        "malformed annotation: no text": "3, such as silent-0.gif, silent-1.gif, silent-2.gif",
        "too small: shorter side below 64": "1, such as small.png",
    }
    assert found["left_out"] == {
        "hidden file": "2, such as ._0.jpg, ._1.jpg", ORPHAN: "2, such as lone-a.txt, lone-b.caption"
    }  # fmt: skip
    assert found["opened"] == 5 and found["widths"] == "64 to 66, median 64.5"
    assert found["heights"] == "64 to 64, median 64" and found["aspect_ratios"] == "1 to 1.03, median 1.01"


def reasons_of_a_run(rows) -> dict[str, Counter]:
    return {status: Counter(error for _, its, error in rows if its == status) for status in ("quarantined", "left out")}


@pytest.mark.parametrize("form", SOURCES)
def test_a_survey_says_what_the_run_does(form, tmp_path):
    """Reasons and their numbers, also of several records of one image, of lines without a caption and broken lines."""
    root = tmp_path / "data"
    items = [item for item in tree_of(60) if form != "coco" or "\xe9" not in (item.caption or "")]
    pack([*items, *items[:3]] if form in ("metadata", "coco", "journeydb") else items, root, form)
    others = add_left_out(root, form)
    found = survey(source_of(SOURCE_OF.get(form, form), root), 16)
    _, rows = encode(root, tmp_path / "run", form)
    for status, counts in reasons_of_a_run(rows).items():
        counts = Counter(map(without_details, counts.elements()))
        said = {reason: int(words.partition(",")[0]) for reason, words in found[status.replace(" ", "_")].items()}
        assert said == +counts
    on_disk = len(items) + others if form == "journeydb-packed" else images_on_disk(root)
    hidden_archives = {"webdataset": 2, "parquet": 1}.get(form, 0)
    assert found["images"] == on_disk - hidden_archives


@pytest.mark.parametrize(("form", "others"), [("folder", "0.zip"), ("webdataset", "1.zip"), ("parquet", "1.arrow")])
def test_links_to_folders_and_archives_are_no_images(form, others, tmp_path):
    pack([Item("0.jpg", image_bytes(0), '"zero"'), Item("1.jpg", image_bytes(1), '"one"')], tmp_path, form)
    (tmp_path / others).write_bytes(b"")
    (tmp_path / "link.jpg").symlink_to(tmp_path)
    found = survey(source_of(form, tmp_path), 16)
    assert (found["pairs"], found["images"]) == (2, 2) and sum(int(said[0]) for said in found["left_out"].values()) == 2


def test_a_survey_names_members_of_archives_that_no_line_names(tmp_path):
    pack([Item("0.jpg", image_bytes(0), '"zero"'), Item("1.jpg", image_bytes(1), None)], tmp_path, "journeydb-packed")
    with tarfile.open(tmp_path / IMAGES / "000.tgz", "w:gz") as archive:
        for name in ("0.jpg", "1.jpg", "2.jpg", "2.jpg", "._0.jpg", "3.heic", "notes.txt"):
            member(archive, f"./000/{name}", image_bytes(0))
    found = survey(source_of("journeydb", tmp_path), 16)
    assert (found["pairs"], found["images"], found["opened"]) == (1, 5, 1)
    assert found["left_out"] == {
        UNNAMED: f"2, such as {IMAGES}/000/2.jpg, {IMAGES}/000/3.heic",
        "hidden file": f"1, such as {IMAGES}/000/._0.jpg",
    }


@pytest.mark.parametrize("form", ["parquet", "journeydb-packed", "metadata"])
@pytest.mark.parametrize("per_image", ["one", "all"])
def test_records_without_an_image_are_counted_beyond_those_that_are_opened(form, per_image, tmp_path, monkeypatch):
    """Rows without bytes, lines whose image an archive or folder lacks, with and without a caption, once or twice."""
    monkeypatch.setattr("lcm_distill.data.survey.OPENED", 2)
    root = tmp_path / "data"
    images = [Item(f"{n}.jpg", image_bytes(n), '["one", "two"]' if n % 2 else '"one"') for n in range(12)]
    if form == "parquet":
        root.mkdir()
        rows = [item.image for item in images] + [None, None, b"", None]
        column = pa.array([{"bytes": image, "path": None} for image in rows], pa.struct(HUB))
        table = pa.table({"image": column, "caption": ["text"] * 13 + [None] + ["text"] * 2})
        pq.write_table(table, root / "0.parquet", row_group_size=4)
    else:
        pack(images, root, form)
        packed = form == "journeydb-packed"
        name, text, start = ("img_path", "prompt", "./000/") if packed else ("file_name", "text", "")
        absent = [{name: f"{start}a{n}.jpg", text: texts} for n, texts in enumerate(("x", "x", "x", ["x", "y"]))]
        lines = [*absent, absent[0], {name: f"{start}silent.jpg"}]
        path = root / (ANNOTATIONS if packed else "metadata.jsonl")
        path.write_bytes(path.read_bytes().strip() + b"\n" + "\n".join(map(json.dumps, lines)).encode())
    found = survey(source_of(SOURCE_OF.get(form, form), root, f"data.captions_per_image={per_image}"), 16)
    _, rows = encode(root, tmp_path / "run", form, f"data.captions_per_image={per_image}")
    said = {reason: int(words.partition(",")[0]) for reason, words in found["quarantined"].items()}
    assert said == reasons_of_a_run(rows)["quarantined"]
    expected = 3 if form == "parquet" else 4 + (per_image == "all")
    assert said["missing file"] == expected and found["images"] == 12 and found["opened"] == 2


def test_the_command_line_prints_it_and_stores_nothing(tmp_path):
    root = data_set(tmp_path / "data")
    options = ["--preset", "shapes", "--set", "data.source=folder", "--set", f"data.root={root}"]
    result = lcm("precompute", *options, "--run", tmp_path / "run", "--dry-run", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["precompute"]["data"]["pairs"] == 5
    assert "silent-0.gif" in lcm("precompute", *options, "--run", tmp_path / "run", "--dry-run").stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["precompute", "run", "pretrain"])
@pytest.mark.parametrize("chosen", [["data.source=coco"], ["data.source=folder", "data.root=nowhere"]])
def test_a_dry_run_that_can_read_nothing_prints_its_listing_and_ends_as_the_command(tmp_path, command, chosen):
    words = [command, *shapes(chosen), "--run", tmp_path / "run"]
    planned, ended = lcm(*words, "--dry-run", "--json"), lcm(*words)
    line = ended.stderr.splitlines()[-1]
    assert (planned.exit_code, planned.stderr.splitlines()) == (ended.exit_code, [line]) == (2, [line])
    found = json.loads(planned.stdout)["precompute"]
    assert line == f"lcm: {found['data']['unreadable']}" and found["missing"] == [found["data"]["unreadable"]]
    shown = lcm(*words, "--dry-run")
    assert "latent bytes per sample" in shown.stdout and "data.root" not in shown.stdout
    assert shown.stderr.splitlines() == [line]
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_a_numbered_cache_needs_no_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Zeros)
    root = data_set(tmp_path / "data")
    options = ["--preset", "shapes", "--set", "data.source=folder", "--set", f"data.root={root}"]
    assert lcm("precompute", *options, "--run", tmp_path / "run").exit_code == 0
    root.rename(tmp_path / "elsewhere")
    planned = lcm("precompute", "--run", tmp_path / "run", "--dry-run", "--json")
    assert planned.exit_code == lcm("precompute", "--run", tmp_path / "run").exit_code == 0
    assert "unreadable" in json.loads(planned.stdout)["precompute"]["data"]


def test_status_says_what_lies_on_disk_and_not_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Zeros)
    root, run = data_set(tmp_path / "data"), tmp_path / "run"
    options = ["--preset", "shapes", "--set", "data.source=folder", "--set", f"data.root={root}"]
    assert lcm("precompute", *options, "--run", run).exit_code == 0

    def status():
        return json.loads(lcm("status", "--run", run, "--json").stdout)["precompute"]

    assert status()["data"]["not_in_the_cache"] == 0
    assert status()["try_again"] == f"lcm precompute --run {run} --retry-quarantined"
    assert status()["left_out"] == {"hidden file": 2, ORPHAN: 2}
    (root / "silent-0.txt").write_text("no longer")
    (root / "1.txt").write_text("another caption than before")
    (root / "small.png").write_bytes(image_bytes(0))
    assert status()["data"] == {"not_in_the_cache": 1, "changed": ["1.jpg"], "gone": []}
    assert lcm("precompute", "--run", run, "--retry-quarantined").exit_code == 0
    assert status()["data"]["not_in_the_cache"] == 0
    assert status()["quarantined"] == {"malformed annotation: no text": 2} and status()["try_again"] is None


@pytest.mark.parametrize("name", [name for name, kind in registry.SOURCES.items() if not kind.generated])
def test_a_root_that_is_no_folder_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    data = load_preset("shapes", [f"data.source={name}", "data.root=nope"]).data
    with pytest.raises(UserError, match=f"data.root = 'nope': there is no folder {tmp_path}/nope: set it"):
        open_source(data, tmp_path)
    (tmp_path / "nope").write_bytes(b"an archive, perhaps")
    with pytest.raises(UserError, match=f"data.root = 'nope': {tmp_path}/nope is a file: set it to your data set's f"):
        open_source(data, tmp_path)


def test_a_reason_is_one_however_many_bytes_are_missing_and_wherever_a_flaw_is(tmp_path):
    """In the dry run, `lcm status` and the report: sizes and positions differ, the flaw does not."""
    root, run = tmp_path / "data", tmp_path / "run"
    whole = image_bytes(0, "JPEG", (200, 200))
    images = {f"cut-{n}.jpg": whole[: len(whole) // 2 + n] for n in range(5)}
    images |= {f"small-{n}.png": image_bytes(0, "PNG", (4 + n, 9)) for n in range(3)}
    images |= {f"text-{n}.png": image_bytes(n, "PNG") for n in range(3)}
    pack([Item(name, content, '"a caption"') for name, content in {**images, "ok.png": image_bytes(0)}.items()], root,
         "folder")  # fmt: skip
    for n in range(3):
        (root / f"text-{n}.txt").write_bytes(b"c" * n + b"\xe9")
    encode(root, run, "folder")
    expected = {
        "unreadable image: image file is truncated (N bytes not processed)": 5, "too small: shorter side below 16": 3,
        "malformed annotation: its .txt is unusable: not UTF-8": 3,
    }  # fmt: skip
    found = survey(source_of("folder", root), 16)["quarantined"]
    assert {reason: int(words[0]) for reason, words in found.items()} == expected
    config = load_preset("shapes", ["data.source=folder", f"data.root='{root}'", "data.valid_fraction=0",
                                    "data.min_size=16", "cache.shard_rows=64"])  # fmt: skip
    assert status_of(config, RunFolder(run))["precompute"]["quarantined"] == expected
    report(config, RunFolder(run), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert all(f"{reason}</td><td>{count}</td>" in page for reason, count in expected.items())
