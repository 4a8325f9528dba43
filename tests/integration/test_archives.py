"""Archives are streamed: nothing is extracted, and an interrupted run ends with the same bytes."""

import shutil
import tarfile

import numpy as np
import pytest
import zarr

from lcm_distill.config import load_preset
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.shapes.dataset import annotations_path, write_images
from lcm_distill.stages.precompute import precompute
from tests.conftest import SMALL
from tests.files import shard_files


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    root = tmp_path_factory.mktemp("extracted")
    lines = [line for _, line in write_images(root, seed=0, count=40, width=64)]
    annotations_path(root).write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def packed(extracted, tmp_path_factory):
    """The same download as it came: archives, whose order is not that of the annotations."""
    root = tmp_path_factory.mktemp("packed")
    (root / IMAGES).mkdir(parents=True)
    images = sorted((extracted / IMAGES / "000").glob("*.jpg"))
    with tarfile.open(root / IMAGES / "000.tgz", "w:gz") as archive:
        for image in images[:-1]:
            archive.add(image, f"000/{image.name}")
    with tarfile.open(root / f"{ANNOTATIONS}.tgz", "w:gz") as archive:
        archive.add(extracted / ANNOTATIONS, "train_anno_realease_repath.jsonl")
    return root, images[-1].name


def encode(root, run: RunFolder) -> np.ndarray:
    config = load_preset("shapes", [*SMALL, "data.source=journeydb", f"data.root='{root}'"])
    run.open(config)
    list(precompute(config, run))
    return np.asarray(zarr.open_array(run.cache / "latents_64", mode="r")[:])


def shards(run: RunFolder) -> dict[str, bytes]:
    return shard_files(run.cache)


def test_archives_and_folders_give_the_same_latents(extracted, packed, tmp_path):
    root, missing = packed
    before = sorted(root.rglob("*"))
    from_folder = encode(extracted, RunFolder(tmp_path / "folder"))
    from_archive = encode(root, RunFolder(tmp_path / "archive"))
    absent = np.isnan(from_archive).all(axis=(1, 2, 3))
    assert absent.sum() == 1 and missing
    np.testing.assert_allclose(from_archive[~absent], from_folder[~absent], atol=4e-3)  # one unit of float16 at 4
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("lost", ["latents_64-00000", "latents_64-00001"])
def test_shards_that_are_made_again_are_the_same(packed, tmp_path, lost):
    run = RunFolder(tmp_path / "run")
    encode(packed[0], run)
    whole = shards(run)
    (run.cache / "manifest" / f"{lost}.parquet").unlink()
    shutil.rmtree(run.cache / "latents_64" / "c" / lost[-1])
    encode(packed[0], run)
    assert shards(run) == whole
