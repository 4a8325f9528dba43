"""Whatever is broken is named, and mended to the bytes of a cache that never was."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lcm_distill.arrays.format import CHECKSUM
from lcm_distill.core.errors import DataError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.cache.catalog_building import open_catalog
from lcm_distill.data.cache.layout import CacheLayout
from lcm_distill.data.cache.manifest_rows import CATALOG_TASK, SAMPLE_COLUMNS
from lcm_distill.pipeline.compaction import compact
from lcm_distill.pipeline.manifest import Manifest, part_name
from lcm_distill.pipeline.manifest_parts import decode_part, encode_part
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.stages.status import status
from lcm_distill.stages.verify import Verification
from tests.command_line import lcm
from tests.files import cache_files, flip, shard_files
from tests.runs import borrow

SHARD = "latents_64/c/1/0/0/0"
PART = "manifest/latents_64-00001.parquet"


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """A copy of the finished run that may be broken."""
    return borrow(finished_run, tmp_path, "config.toml", "cache", "images")


def open_manifest(run):
    return Manifest(LocalStorage(run.cache), SAMPLE_COLUMNS)


def verified(config, run) -> Verification:
    verification = Verification(config, run)
    reports = list(verification.check())
    assert [report.done == report.total for report in reports].index(True) == len(reports) - 1
    return verification


def found(verification) -> list[tuple[str | None, str, int | None, str]]:
    return [(damage.task, damage.path, damage.row, damage.reason) for damage in verification.damage]


def manifest_rows(config, run) -> list[dict]:
    manifest = open_manifest(run)
    assert len(manifest.done(Cache.open(config, run).tasks())) > 5
    return manifest.read().to_pylist()


def test_a_sound_cache_is_sound(small_config, run):
    verification = verified(small_config, run)
    catalog = Cache.open(small_config, run).read_catalog()
    assert found(verification) == [] and verification.pending == 0
    assert verification.rows == len(catalog.samples) + len(catalog.captions) > 72


def flip_a_byte_of_row_19(run, config):
    stride = CacheLayout(config).latents(72).row_bytes + CHECKSUM
    flip(run.cache / SHARD, 3 * stride + 5)
    return [
        ("latents_64-00001", SHARD, None, "SHA-256 is not the one recorded"),
        ("latents_64-00001", SHARD, 19, "does not match the CRC-32C behind it"),
    ]


def flip_a_byte_of_the_index(run, config):
    stride = CacheLayout(config).latents(72).row_bytes + CHECKSUM
    flip(run.cache / SHARD, 16 * stride + 16)
    return [
        ("latents_64-00001", SHARD, None, "SHA-256 is not the one recorded"),
        ("latents_64-00001", SHARD, None, "no row can be read: the shard's index is damaged"),
    ]


def truncate_a_file(run, config):
    path = run.cache / SHARD
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1000])
    return [("latents_64-00001", SHARD, None, f"has {size - 1000:,} bytes, {size:,} were written")]


def delete_a_shard(run, config):
    (run.cache / "text/c/0/0/0").unlink()
    return [("text-00000", "text/c/0/0/0", None, "the file is missing")]


def delete_a_part(run, config):
    (run.cache / PART).unlink()
    return [("latents_64-00001", PART, None, "the manifest part is missing")]


def flip_a_byte_of_a_part(run, config):
    flip(run.cache / PART, (run.cache / PART).read_bytes().index(b"imgs/"))
    return [("latents_64-00001", PART, None, "the manifest part is damaged")]


def empty_a_part(run, config):
    (run.cache / PART).write_bytes(b"")
    return [("latents_64-00001", PART, None, "the manifest part is damaged")]


def swap_checksums_in_a_part(run, config):
    """The part is whole and the shard is whole, and they disagree."""
    ((entry, table),) = decode_part((run.cache / PART).read_bytes(), open_manifest(run).schema)
    checksums = table["checksum"].to_pylist()
    checksums[4] += 1
    place = table.schema.get_field_index("checksum")
    table = table.set_column(place, "checksum", pa.array(checksums, SAMPLE_COLUMNS.field("checksum").type))
    (run.cache / PART).write_bytes(encode_part(table, [entry]))
    return [("latents_64-00001", SHARD, 20, "does not match the manifest's checksum")]


def break_metadata(run, config):
    (run.cache / "latents_64/zarr.json").write_bytes(b"{")
    return [("latents_64-00000", "latents_64/zarr.json", None, "is missing or does not describe the field")]


def flip_a_byte_of_the_catalog(run, config):
    flip(run.cache / "catalog/samples.parquet", 100)
    return [("catalog", "catalog/samples.parquet", None, "SHA-256 is not the one recorded")]


def delete_captions_and_their_part(run, config):
    (run.cache / "catalog/captions.parquet").unlink()
    (run.cache / "manifest/catalog.parquet").unlink()
    return [("catalog", "manifest/catalog.parquet", None, "the manifest part is missing")]


BREAKS = [
    flip_a_byte_of_row_19, flip_a_byte_of_the_index, truncate_a_file, delete_a_shard, delete_a_part,
    flip_a_byte_of_a_part, empty_a_part, swap_checksums_in_a_part, break_metadata, flip_a_byte_of_the_catalog,
    delete_captions_and_their_part,
]  # fmt: skip


@pytest.mark.parametrize("damage", BREAKS)
def test_damage_is_named_and_mended(small_config, finished_run, run, damage):
    expected = damage(run, small_config)
    verification = verified(small_config, run)
    assert found(verification) == expected
    with pytest.raises(DataError, match="lcm verify --repair"):
        verification.raise_if_broken()
    untouched = {run.cache / name: (run.cache / name).stat().st_mtime_ns for name in shard_files(run.cache)}
    list(verification.repair())
    assert found(verification) == [] and len(verification.repaired) == 1
    sound = verified(small_config, run)
    assert found(sound) == [] and verification.rows == sound.rows
    assert cache_files(run.cache) == cache_files(finished_run.cache)
    assert manifest_rows(small_config, run) == manifest_rows(small_config, finished_run)
    again = [path for path, written in untouched.items() if path.stat().st_mtime_ns != written]
    assert len(again) <= 1


@pytest.mark.parametrize("damage", [flip_a_byte_of_row_19, delete_a_shard, flip_a_byte_of_the_catalog, break_metadata])
def test_a_compacted_cache_is_mended_as_well(small_config, finished_run, run, damage):
    list(compact(open_manifest(run), tasks_per_file=4))
    expected = damage(run, small_config)
    verification = verified(small_config, run)
    assert found(verification) == expected
    list(verification.repair())
    assert found(verification) == [] and cache_files(run.cache) == cache_files(finished_run.cache)
    assert manifest_rows(small_config, run) == manifest_rows(small_config, finished_run)


@pytest.mark.parametrize("how", ["flip", "delete"])
def test_a_broken_merged_file_has_all_its_tasks_done_again(small_config, finished_run, run, how):
    manifest = open_manifest(run)
    list(compact(manifest, tasks_per_file=4))
    for path in (run.cache / file for file in manifest.merged_files()):
        flip(path, path.read_bytes().index(b"parquet")) if how == "flip" else path.unlink()
    verification = verified(small_config, run)
    assert verification.damage[0].task == "catalog"
    list(verification.repair())
    assert found(verification) == [] and cache_files(run.cache) == cache_files(finished_run.cache)
    assert manifest_rows(small_config, run) == manifest_rows(small_config, finished_run)


def test_a_part_under_another_name_is_removed(small_config, finished_run, run):
    part = run.cache / part_name("latents_64-00001")
    shutil.copy(part, part.with_name("latents_64-00099.parquet"))
    verification = verified(small_config, run)
    assert [damage.path for damage in verification.damage] == ["manifest/latents_64-00099.parquet"]
    list(verification.repair())
    verification.raise_if_broken()
    assert verified(small_config, run).result()["sound"] and not part.with_name("latents_64-00099.parquet").exists()
    assert shard_files(run.cache) == shard_files(finished_run.cache)


def test_what_was_not_begun_is_pending(small_config, run):
    (run.cache / SHARD).unlink()
    (run.cache / PART).unlink()
    verification = verified(small_config, run)
    assert found(verification) == [] and verification.pending == 1


def test_shards_whose_images_are_gone_are_left_alone(small_config, run):
    """Encoding them again would lose the rows that are still sound."""
    flip_a_byte_of_row_19(run, small_config)
    source = open_manifest(run).read().filter(pc.field("row") == 20).filter(
        pc.field("kind") == "image"
    )["source"][0].as_py()  # fmt: skip
    (run.images / source).unlink()
    before, verification = cache_files(run.cache), verified(small_config, run)
    with pytest.raises(DataError, match=r"lacks 1 image of broken shards, such as .*: put them back"):
        list(verification.repair())
    assert cache_files(run.cache) == before and len(manifest_rows(small_config, run)) > 72


def test_another_source_is_not_numbered_over_the_cache(small_config, run):
    flip_a_byte_of_the_catalog(run, small_config)
    annotations = next(path for path in run.images.rglob("*") if path.suffix == ".jsonl")
    annotations.write_text("\n".join(annotations.read_text().splitlines()[1:]) + "\n")
    before, verification = cache_files(run.cache), verified(small_config, run)
    with pytest.raises(DataError, match=r"is not what .* was made from"):
        list(verification.repair())
    assert cache_files(run.cache) == before


def test_command_line(small_config, run):
    assert json.loads(lcm("verify", "--run", run.root, "--json").stdout)["sound"]
    flip_a_byte_of_row_19(run, small_config)
    broken = lcm("verify", "--run", run.root, "--json")
    assert broken.exit_code == 3
    assert broken.stderr.strip().splitlines()[-1].startswith(f"lcm: {run.cache} is damaged in 2 places: ")
    assert [damage["row"] for damage in json.loads(broken.stdout)["damage"]] == [None, 19]
    table = lcm("verify", "--run", run.root)
    assert table.exit_code == 3 and SHARD in table.stdout and "19" in table.stdout
    mended = lcm("verify", "--run", run.root, "--repair", "--json")
    assert mended.exit_code == 0 and json.loads(mended.stdout)["repaired"] == ["latents_64-00001"]
    compacted = lcm("cache", "compact", "--run", run.root, "--json")
    assert compacted.exit_code == 0 and json.loads(compacted.stdout)["files"] == 1
    assert lcm("verify", "--run", run.root).exit_code == 0


def test_commands_need_a_cache(tmp_path, run):
    shutil.rmtree(run.cache)
    for command in (["verify"], ["cache", "compact"]):
        result = lcm(*command, "--run", run.root)
        assert result.exit_code == 2 and f"run `lcm precompute --run {run.root}` first" in result.stderr


def test_a_damaged_catalog_is_not_taken_for_other_settings(small_config, run):
    truncated = run.cache / "catalog/samples.parquet"
    truncated.write_bytes(truncated.read_bytes()[:-8])
    with pytest.raises(
        DataError, match=r"samples.parquet: has [\d,]+ bytes, [\d,]+ were written: `lcm verify --repair"
    ):
        open_catalog(Cache.open(small_config, run))


def test_status_tells_rate_time_left_and_damage(small_config, run):
    import os

    manifest = open_manifest(run)
    tasks = Cache.open(small_config, run).tasks()
    images = [task for task in tasks if task.inputs["kind"] == "image"]
    os.utime(run.cache / part_name(CATALOG_TASK), (0, 0))
    for second, task in enumerate((task for task in tasks if task not in images), start=1):
        os.utime(run.cache / part_name(task.name), (second, second))
    for path in run.cache.glob("latents_64/c/*/0/0/0"):
        os.utime(path, (90, 90))
    times = [100, 108, 116, 3600, 3602]  # 16 rows in 8 s, 16 in 8 s, a pause, 8 rows in 2 s
    for task, when in zip(images, times, strict=True):
        os.utime(run.cache / part_name(task.name), (when, when))
    figures = status(small_config, run)["precompute"]
    assert figures["rows_per_second"] == round((16 + 16 + 8) / 18, 1) and figures["seconds_left"] is None
    manifest.drop([images[4].name])
    (run.cache / "latents_64/c/3/0/0/0").unlink()
    figures = status(small_config, run)["precompute"]
    assert (figures["done"], figures["damaged"]) == (len(tasks) - 2, 1)
    assert figures["rows_per_second"] == 2.0 and figures["seconds_left"] == (16 + 8) / 2
    manifest.drop([tasks[0].name])
    assert status(small_config, run)["precompute"]["seconds_left"] is None
    list(compact(manifest))
    assert np.all([status(small_config, run)["precompute"]["rows_per_second"] is None])


def test_rows_of_a_cache_whose_every_shard_is_encoded_again_count_once(small_config, run):
    sound = verified(small_config, run).rows
    for name in shard_files(run.cache):
        flip(run.cache / name, 5)
    verification = verified(small_config, run)
    assert verification.rows == sound
    reports = list(verification.repair())
    assert verification.rows == sound and len(verification.repaired) == len(shard_files(run.cache))
    finished = [report.label for report in reports if report.done == report.total]
    assert finished == ["encode again", "verify again"]
