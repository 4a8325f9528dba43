"""Bad records are set aside with their reason, counted, and the run completes."""

import duckdb
import numpy as np
import pytest
import zarr
from PIL import Image

from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.sources.journeydb import ANNOTATIONS
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.shapes.dataset import annotations_path, write_images
from lcm_distill.stages.precompute import precompute
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A JourneyDB download of 24 images of which four are bad, and two bad annotation lines."""
    root = tmp_path_factory.mktemp("journeydb")
    lines = [line for _, line in write_images(root, seed=0, count=24, width=64)]
    images = sorted((root / "data/train/imgs/000").glob("*.jpg"))
    images[0].write_bytes(b"not an image at all")
    images[1].write_bytes(images[1].read_bytes()[:300])
    images[2].unlink()
    Image.new("RGB", (64, 20)).save(images[3])
    lines[5:5] = ["{broken", '{"img_path": "./000/x.jpg"}']
    annotations_path(root).write_text("\n".join(lines) + "\n")
    return root


def test_run_completes_and_says_what_was_left_out(damaged, tmp_path):
    config = load_preset("shapes", [*SMALL, "data.source=journeydb", f"data.root='{damaged}'"])
    run = RunFolder(tmp_path)
    reports = list(precompute(config, run))
    assert reports[-1].done == reports[-1].total and reports[-1].counts["quarantined"] == 6
    rows = duckdb.execute(
        f"SELECT kind, source, error, row FROM read_parquet('{run.cache}/manifest/*.parquet', union_by_name=true)"
        " WHERE status = 'quarantined' ORDER BY error"
    ).fetchall()
    assert [error.split(":")[0] for _, _, error, _ in rows] == [
        "malformed annotation", "missing file", "missing file; malformed annotation",
        "not an image", "too small", "unreadable image",
    ]  # fmt: skip
    assert rows[0][:2] == ("record", f"{ANNOTATIONS}:6") and rows[2][1].endswith("/000/x.jpg")
    latents = np.asarray(zarr.open_array(run.cache / "latents_64", mode="r")[:])
    bad = [row for kind, _, _, row in rows if kind == "image"]
    assert np.isnan(latents[bad]).all()
    assert np.isfinite(np.delete(latents, bad, axis=0)).all()
    drawn = np.concatenate([Cache.open(config, run).batches(8, config.seed)[step].rows for step in range(9)])
    usable = set(Cache.open(config, run).usable("train")["row"].to_pylist())
    assert set(drawn) == usable and not usable & set(bad)


def test_no_usable_image_is_an_error(tmp_path):
    root = tmp_path / "journeydb"
    lines = [line for _, line in write_images(root, seed=0, count=3, width=64)]
    for image in root.rglob("*.jpg"):
        image.unlink()
    annotations_path(root).write_text("\n".join(lines))
    config = load_preset("shapes", [*SMALL, "data.source=journeydb", f"data.root='{root}'"])
    with pytest.raises(UserError, match=r"no image of .* could be used"):
        list(precompute(config, RunFolder(tmp_path / "run")))


def test_images_that_are_all_held_out_are_not_called_unusable(tmp_path):
    for name in ("0.jpg", "1.jpg"):
        (tmp_path / "own").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(tmp_path / "own" / name)
        (tmp_path / "own" / name).with_suffix(".txt").write_text(f"a red square {name}")
    own = ["data.source=folder", f"data.root='{tmp_path / 'own'}'", "data.valid_fraction=0.999"]
    with pytest.raises(UserError, match=r"as data.valid_fraction holds 2 images out: add images, or lower it"):
        list(precompute(load_preset("shapes", [*SMALL, *own]), RunFolder(tmp_path / "run")))


def test_missing_download_is_explained(tmp_path):
    for assignments, message in (
        (["data.source=journeydb"], "data.root is missing"),
        (["data.source=journeydb", f"data.root={tmp_path}"], "set data.root"),
    ):
        with pytest.raises(UserError, match=message):
            list(precompute(load_preset("shapes", [*SMALL, *assignments]), RunFolder(tmp_path / "run")))
