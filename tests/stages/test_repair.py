"""A repair gives back what was recorded, row by row, or says what it cannot bring back."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lcm_distill.arrays.format import CHECKSUM
from lcm_distill.arrays.metadata import read_metadata
from lcm_distill.arrays.reader import FieldReader
from lcm_distill.config import load_preset
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.manifest_rows import SAMPLE_COLUMNS
from lcm_distill.encoders import identity
from lcm_distill.encoders.configured import ConfiguredEncoders
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.stages.precompute import precompute
from lcm_distill.stages.status import status
from lcm_distill.stages.verify import Verification
from tests.conftest import SMALL
from tests.files import flip, shard_files

SHARD = "latents_64/c/1/0/0/0"
FIRST = 16
"""Number of the first row of that shard."""


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """A copy of the finished run's data that may be broken."""
    shutil.copy(finished_run.root / "config.toml", tmp_path)
    for name in ("cache", "images"):
        shutil.copytree(finished_run.root / name, tmp_path / name)
    return RunFolder(tmp_path)


def image_rows(run: RunFolder) -> dict[int, dict]:
    rows = Manifest(LocalStorage(run.cache), SAMPLE_COLUMNS).read().to_pylist()
    return {row["row"]: row for row in rows if row["kind"] == "image"}


def flip_row(config, run, row):
    stride = Cache.open(config, run).layout.latents(72).row_bytes + CHECKSUM
    flip(run.cache / SHARD, (row - FIRST) * stride + 7)


def repair(config, run) -> Verification:
    verification = Verification(config, run)
    list(verification.check())
    assert verification.damage
    list(verification.repair())
    return verification


def change(path):
    Image.open(path).rotate(180).save(path, quality=95)


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("alter", [change, cut])
def test_rows_whose_images_have_changed_stay_what_they_were(small_config, finished_run, run, alter):
    """Row 19 is damaged; the image of row 20, whose latents are sound, is another one by now."""
    flip_row(small_config, run, 19)
    alter(run.images / image_rows(run)[20]["source"])
    verification = repair(small_config, run)
    assert (verification.damage, verification.lost) == ([], [])
    assert shard_files(run.cache) == shard_files(finished_run.cache) and image_rows(run) == image_rows(finished_run)


@pytest.mark.parametrize("alter", [change, cut])
def test_a_damaged_row_whose_image_has_changed_is_named_and_stays_damaged(small_config, finished_run, run, alter):
    flip_row(small_config, run, 19)
    source = image_rows(run)[19]["source"]
    original, before = (run.images / source).read_bytes(), shard_files(run.cache)
    alter(run.images / source)
    verification = repair(small_config, run)
    assert verification.lost == [source] and [found.row for found in verification.damage] == [None, 19]
    with pytest.raises(DataError, match=f"1 damaged rows .* such as that of {source}: put back"):
        verification.raise_if_broken()
    assert shard_files(run.cache) == before and image_rows(run) == image_rows(finished_run)
    again = Verification(small_config, run)
    list(again.check())
    with pytest.raises(DataError, match="makes it again, or names the rows that it cannot restore"):
        again.raise_if_broken()
    (run.images / source).write_bytes(original)
    verification = repair(small_config, run)
    verification.raise_if_broken()
    assert shard_files(run.cache) == shard_files(finished_run.cache)


def test_a_shard_that_lost_its_part_keeps_its_rows(small_config, finished_run, run):
    (run.cache / "manifest/latents_64-00001.parquet").unlink()
    change(run.images / image_rows(finished_run)[20]["source"])
    cut(run.images / image_rows(finished_run)[21]["source"])
    verification = repair(small_config, run)
    verification.raise_if_broken()
    assert shard_files(run.cache) == shard_files(finished_run.cache)
    assert image_rows(run)[21]["status"] == "ok"


def exchange_rows(run, config):
    stride = Cache.open(config, run).layout.latents(72).row_bytes + CHECKSUM
    content = bytearray((run.cache / SHARD).read_bytes())
    content[:stride], content[stride : 2 * stride] = content[stride : 2 * stride], content[:stride]
    (run.cache / SHARD).write_bytes(content)


def exchange_shards(run, config):
    one, other = run.cache / SHARD, run.cache / SHARD.replace("c/1", "c/2")
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize("exchange", [exchange_rows, exchange_shards])
def test_rows_that_exchanged_places_are_found_by_readers(small_config, run, exchange):
    before = Cache.open(small_config, run).batches(8, seed=0).latents[np.arange(16, 48)]
    assert np.isfinite(before).all()
    exchange(run, small_config)
    reader = Cache.open(small_config, run).batches(8, seed=0).latents
    with pytest.raises(DataError, match=r"row 1\d does not match the manifest's checksum: `lcm verify --repair"):
        reader[np.arange(16, 48)]


def test_rows_without_a_recorded_checksum_are_read(small_config, run):
    field = Cache.open(small_config, run).layout.latents(72)
    rows = FieldReader(run.cache, field, checksums=np.full(72, -1))[np.arange(72)]
    assert np.array_equal(rows, FieldReader(run.cache, field)[np.arange(72)], equal_nan=True)


def test_other_weights_of_an_encoder_are_refused(small_config, run, monkeypatch):
    attributes = read_metadata(LocalStorage(run.cache), "latents_64/zarr.json", "")["attributes"]
    assert attributes["weights_sha256"] == identity.weights_sha256(small_config.encoders, "vae")
    assert attributes["compute_dtype"] == "float32" and set(attributes["versions"]) == {"torch", "diffusers"}
    before, real = shard_files(run.cache), identity.weights_sha256
    monkeypatch.setattr(identity, "weights_sha256", lambda s, which: "0" * 64 if which == "vae" else real(s, which))
    with pytest.raises(UserError, match=r"^encoders\.vae = 'shapes' has other weights .* put those back"):
        list(precompute(small_config, run))
    flip_row(small_config, run, 19)
    with pytest.raises(UserError, match=r"^encoders\.vae = 'shapes' has other weights"):
        repair(small_config, run)
    before_repair = shard_files(run.cache)
    assert [name for name in before if before[name] != before_repair[name]] == [SHARD]


def test_a_cache_without_recorded_weights_opens(small_config, run):
    """Earlier versions recorded neither weights nor a hash of `zarr.json`."""
    import json

    path = run.cache / "latents_64/zarr.json"
    metadata = json.loads(path.read_bytes())
    for name in ("sha256", "weights_sha256", "compute_dtype", "versions"):
        del metadata["attributes"][name]
    path.write_text(json.dumps(metadata))
    before = shard_files(run.cache)
    list(precompute(small_config, run))
    verification = Verification(small_config, run)
    list(verification.check())
    verification.raise_if_broken()
    assert shard_files(run.cache) == before


def test_a_caption_without_finite_embedding_is_quarantined(tmp_path, monkeypatch):
    real = ConfiguredEncoders.encode_texts

    def encode(self, captions):
        embeddings = real(self, captions)
        if not hasattr(self, "broken"):
            self.broken = True
            embeddings[1, 2, 3] = np.nan
        return embeddings

    monkeypatch.setattr(ConfiguredEncoders, "encode_texts", encode)
    config, run = load_preset("shapes", [*SMALL, "data.images=24"]), RunFolder(tmp_path)
    run.open(config)
    list(precompute(config, run))
    rows = Manifest(LocalStorage(run.cache), SAMPLE_COLUMNS).read()
    broken = [row for row in rows.to_pylist() if row["status"] == "quarantined"]
    assert [(row["kind"], row["row"], row["error"]) for row in broken] == [("caption", 1, "embedding is not finite")]
    again = status(config, run)["precompute"]["try_again"]
    assert again == f"lcm precompute --run {run.root} --retry-quarantined"
    cache = Cache.open(config, run)
    used = pa.concat_tables([cache.usable("train"), cache.usable("valid")])["caption_row"].to_pylist()
    assert 1 not in used and {0, 2} <= set(used)


def test_a_repair_encodes_with_the_batch_size_that_was_recorded(finished_run, run):
    """Whole shards are lost, and no row of them is left to compare with: only the same batches give the same bits."""
    config = load_preset("shapes", [*SMALL, "encoders.batch_size=3"])
    before, rows = shard_files(run.cache), image_rows(run)
    for name in ("latents_64/c/0/0/0/0", "latents_64/c/2/0/0/0", "text/c/0/0/0"):
        (run.cache / name).unlink()
    verification = repair(config, run)
    verification.raise_if_broken()
    assert shard_files(run.cache) == before == shard_files(finished_run.cache) and image_rows(run) == rows


def test_rows_that_another_batch_size_may_have_made_are_not_blamed_on_images(small_config, run, monkeypatch):
    """Of a cache that does not record its batch size."""
    monkeypatch.setattr("lcm_distill.data.cache.repair.batch_sizes", lambda *_: {})
    monkeypatch.setattr("lcm_distill.data.cache.encoding.Encoding._batch_size", lambda *_: 1)
    (run.cache / SHARD).unlink()
    verification = repair(small_config, run)
    assert verification.lost
    with pytest.raises(DataError, match=r"device, libraries and encoders\.batch_size where those have changed"):
        verification.raise_if_broken()
