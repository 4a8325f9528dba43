"""What `lcm precompute --dry-run` and `lcm status` say of a data set, and what is said where there is none."""

import json

import pytest
from PIL import Image, ImageCms

from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.data.sources.interface import ORPHAN
from lcm_distill.data.sources.registry import SOURCES, open_source
from lcm_distill.data.survey import survey
from tests.command_line import lcm
from tests.data.test_sources import source_of
from tests.foreign import Zeros, image_bytes


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
        "too small: 100x10, shorter side below 64": "1, such as small.png",
    }
    assert found["left_out"] == {
        "hidden file": "2, such as ._0.jpg, ._1.jpg", ORPHAN: "2, such as lone-a.txt, lone-b.caption"
    }  # fmt: skip
    assert found["opened"] == 5 and found["widths"] == "64 to 66, median 64.5"
    assert found["heights"] == "64 to 64, median 64" and found["aspect_ratios"] == "1 to 1.03, median 1.01"


def test_the_command_line_prints_it_and_stores_nothing(tmp_path):
    root = data_set(tmp_path / "data")
    options = ["--preset", "shapes", "--set", "data.source=folder", "--set", f"data.root={root}"]
    result = lcm("precompute", *options, "--run", tmp_path / "run", "--dry-run", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["precompute"]["data"]["pairs"] == 5
    assert "silent-0.gif" in lcm("precompute", *options, "--run", tmp_path / "run", "--dry-run").stdout
    assert not (tmp_path / "run").exists()
    gone = lcm("precompute", *options, "--set", "data.root=nowhere", "--run", tmp_path / "run", "--dry-run", "--json")
    assert "nowhere holds no metadata" in json.loads(gone.stdout)["precompute"]["data"]["unreadable"]


def test_status_says_what_lies_on_disk_and_not_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("lcm_distill.data.cache.encoding.CacheEncoders", Zeros)
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


@pytest.mark.parametrize("name", [name for name, kind in SOURCES.items() if not kind.generated])
def test_a_root_that_is_no_folder_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    data = load_preset("shapes", [f"data.source={name}", "data.root=nope"]).data
    with pytest.raises(UserError, match=f"data.root = 'nope': there is no folder {tmp_path}/nope: set it"):
        open_source(data, tmp_path)
