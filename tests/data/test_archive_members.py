"""Images in archives of JourneyDB that no line names: counted in the manifest, whoever encodes in whatever order."""

import itertools
import json
import subprocess
import tarfile
from pathlib import Path

import duckdb
import pytest

from lcm_distill.config import load_preset
from lcm_distill.data.cache.archive_members import FOLDER
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.sources.interface import HIDDEN, UNNAMED
from lcm_distill.data.sources.journeydb import ANNOTATIONS, IMAGES
from lcm_distill.data.survey import survey
from lcm_distill.pipeline.compaction import compact
from lcm_distill.pipeline.executors.runner import commit_each, split
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.precompute import precompute
from lcm_distill.stages.status import status
from lcm_distill.stages.verify import Verification
from tests.command_line import PROCESS, shapes
from tests.data.test_sources import source_of
from tests.files import Crash
from tests.foreign import Zeros, image_bytes, images_in_manifest, manifest, member

NAMED, OTHERS = 5, ("u0.jpg", "u1.heic", "._h.png", "notes.txt", "sub/u2.webp")
ARCHIVES = 3


@pytest.fixture(autouse=True)
def _zeros(monkeypatch):
    monkeypatch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Zeros)


@pytest.fixture
def root(tmp_path) -> Path:
    """Three archives with named images, of which one is partly extracted, others, and lines of every kind."""
    root = tmp_path / "data"
    lines = []
    for folder in range(ARCHIVES):
        (root / IMAGES).mkdir(parents=True, exist_ok=True)
        names = [f"{folder:03d}/{name}" for name in (*(f"{n}.jpg" for n in range(NAMED)), *OTHERS)]
        with tarfile.open(root / IMAGES / f"{folder:03d}.tgz", "w:gz") as archive:
            for n, name in enumerate(names):
                member(archive, name, image_bytes(n))
        lines += [{"img_path": f"./{name}", "prompt": name} for name in names[:NAMED]]
    (root / IMAGES / "001").mkdir()
    for name in ("001/0.jpg", "001/u0.jpg"):
        (root / IMAGES / name).write_bytes(image_bytes(0))
    write_lines(root, [*lines, *({"img_path": f"./002/{name}"} for name in ("u1.heic", "silent-and-absent.jpg")),
                       *([{"img_path": "./002/absent.jpg", "prompt": "absent"}] * 2)])  # fmt: skip
    return root


def write_lines(root: Path, lines: list[dict]) -> None:
    (root / ANNOTATIONS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def config_of(root: Path):
    chosen = ["data.source=journeydb", f"data.root='{root}'", "data.valid_fraction=0", "data.min_size=16"]
    return load_preset("shapes", [*chosen, "cache.shard_rows=4", "encoders.batch_size=4"])


class Order:
    """Commits its tasks in an order of its own, each by a worker of its own; after `commits` of them it crashes."""

    leads = True

    def __init__(self, reverse: bool, commits: int | None = None) -> None:
        self.reverse, self.commits = reverse, commits

    def run(self, tasks, manifest, open_work):
        done, pending = split(tasks, manifest)
        yield from done
        for number, task in enumerate(reversed(pending) if self.reverse else pending):
            if number == self.commits:
                raise Crash
            yield from commit_each(open_work(None), [task], manifest)


def files_of(run: Path) -> dict[str, bytes]:
    files = (path for path in (run / "cache").rglob("*") if path.is_file())
    found = {str(path.relative_to(run)): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if "source.json" not in name and "workers" not in name}


def members(*names: str) -> set[str]:
    return {f"{IMAGES}/{name}" for name in names}


def test_images_on_disk_are_those_of_the_manifest_alone(root, tmp_path):
    list(precompute(config_of(root), RunFolder(tmp_path / "run")))
    images = {*(f"{n}.jpg" for n in range(NAMED)), *(name for name in OTHERS if name != "notes.txt")}
    assert images_in_manifest(tmp_path / "run") == members(*(f"{n:03d}/{name}" for n in range(3) for name in images))
    reasons = {}
    for source, state, error in manifest(tmp_path / "run"):
        reasons.setdefault((state, error), set()).add(source.removeprefix(f"{IMAGES}/"))
    assert reasons["left out", HIDDEN] == {"000/._h.png", "001/._h.png", "002/._h.png"}
    assert reasons["left out", UNNAMED] == {
        "000/u0.jpg", "001/u0.jpg", "002/u0.jpg", "000/u1.heic", "001/u1.heic",
        "000/sub/u2.webp", "001/sub/u2.webp", "002/sub/u2.webp",
    }  # fmt: skip
    assert reasons["quarantined", "malformed annotation: no prompt"] == {"002/u1.heic"}
    assert reasons["quarantined", "missing file; malformed annotation: no prompt"] == {"002/silent-and-absent.jpg"}
    assert reasons["quarantined", "missing file"] == {"002/absent.jpg"}
    assert reasons["quarantined", "missing file; duplicate image"] == {"002/absent.jpg"}
    assert len(reasons) == 7  # with those that are ok
    said = survey(source_of("journeydb", root), 16)["left_out"]
    assert {reason: int(words.partition(",")[0]) for reason, words in said.items()} == {UNNAMED: 8, HIDDEN: 3}
    assert "not_counted" not in status(config_of(root), RunFolder(tmp_path / "run"))["precompute"]["data"]


def test_manifest_and_cache_are_the_same_in_any_order_and_after_any_interruption(root, tmp_path):
    config = config_of(root)
    list(precompute(config, RunFolder(tmp_path / "serial")))
    whole = files_of(tmp_path / "serial")
    assert sum(name.startswith(f"cache/{FOLDER}") for name in whole) == ARCHIVES
    tasks = sum(name.startswith("cache/manifest/") for name in whole) - 1
    for reverse, commits in itertools.product((False, True), range(1, tasks + 1)):
        run = RunFolder(tmp_path / f"{reverse}-{commits}")
        if commits < tasks:
            with pytest.raises(Crash):
                list(precompute(config, run, Order(reverse, commits)))
            assert "not_counted" in status(config, run)["precompute"]["data"]
        list(precompute(config, run, Order(reverse)))
        assert files_of(run.root) == whole
    root.rename(tmp_path / "away")
    list(precompute(config, RunFolder(tmp_path / "serial")))
    assert files_of(tmp_path / "serial") == whole


@pytest.mark.slow
def test_two_processes_make_the_same_manifest(root, tmp_path):
    """With encoders as they are, as workers are processes of their own."""
    runs = {}
    for name, options in (("one", []), ("two", ["--executor", "processes", "--workers", "2"])):
        settings = ["data.source=journeydb", f"data.root='{root}'", "data.valid_fraction=0", "data.min_size=16"]
        settings = shapes([*settings, "cache.shard_rows=4", "encoders.batch_size=4"])
        command = [*PROCESS, "precompute", "--run", str(tmp_path / name), *settings, *options]
        subprocess.run(command, check=True, capture_output=True)
        runs[name] = files_of(tmp_path / name)
    assert runs["one"] == runs["two"]


def test_a_line_that_comes_later_makes_a_sample_of_a_counted_image(root, tmp_path):
    config, run = config_of(root), RunFolder(tmp_path / "run")
    list(precompute(config, run))
    list(compact(Cache.open(config, run).manifest))
    lines = (root / ANNOTATIONS).read_text()
    (root / ANNOTATIONS).write_text(lines + json.dumps({"img_path": "./000/u0.jpg", "prompt": "now named"}) + "\n")
    list(precompute(config, run))
    states = {source: state for source, state, _ in manifest(run.root)}
    assert states[f"{IMAGES}/000/u0.jpg"] == "ok" and states[f"{IMAGES}/002/u0.jpg"] == "left out"
    rows = duckdb.execute(
        "SELECT count(*), count(DISTINCT source) FROM read_parquet(?, union_by_name=true) WHERE status = 'left out'",
        [f"{run.cache}/manifest/*.parquet"],
    ).fetchone()
    assert rows == (10, 10)


def test_a_catalog_that_is_made_again_has_them_as_well(root, tmp_path):
    config, run = config_of(root), RunFolder(tmp_path / "run")
    list(precompute(config, run))
    whole = files_of(run.root)
    (run.cache / "manifest" / "catalog.parquet").write_bytes(b"damaged")
    check = Verification(config, run)
    list(check.check())
    list(check.repair())
    assert files_of(run.root) == whole
