"""What the full JourneyDB costs before and between encoding: its catalog, resuming, the status query.

make bench-catalog      # prints last: catalog_seconds=... catalog_gb=... encodes_per_image=... resume_seconds=... ...

The annotation file is made up: as many lines as JourneyDB has, with its fields, and prompts as often repeated. Every
step is what `lcm` itself does; nothing is encoded, since the manifest says that all tasks but one are done.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeVar

import duckdb

from lcm_distill.config import Config, load_preset
from lcm_distill.data.cache.cache import Cache
from lcm_distill.data.sources.journeydb import ANNOTATIONS
from lcm_distill.pipeline.compaction import compact
from lcm_distill.pipeline.manifest import OK, Manifest
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages import precompute as stage

Result = TypeVar("Result")
IMAGES, PROMPTS, ARCHIVES = 4_453_193, 1_643_375, 202
WORDS = [f"word{number}" for number in range(4_000)]


def annotation_lines(images: int) -> Iterator[str]:
    """Lines in the order of JourneyDB: by archive, the images of a prompt scattered over all."""
    prompts = max(1, round(images * PROMPTS / IMAGES))
    for number in range(images):
        numbers = random.Random(number)
        prompt = numbers.randrange(prompts) if number >= prompts else number
        text = " ".join(random.Random(-prompt - 1).choices(WORDS, k=25))
        name = uuid.UUID(int=numbers.getrandbits(128))
        archive = number * ARCHIVES // images
        yield json.dumps(
            {
                "img_path": f"./{archive:03d}/{name}.jpg",
                "prompt": f"{text} {prompt}",
                "Task1": {"Style": WORDS[:6], "Content": WORDS[6:12], "Atmosphere": WORDS[12:15], "Others": []},
                "Task2": {"Caption": text},
                "Task3": {"Style": [{"Question": text, "Options": WORDS[:4], "Answer": "A"}]},
            }
        )


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What `work` returns, and its wall time."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def write_annotations(path: Path, images: int) -> None:
    """The annotation file, one line an image."""
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in annotation_lines(images))


def commit_all_but_last(config: Config, run: RunFolder) -> None:
    """Parts as `lcm precompute` writes them; one small file stands for every shard."""
    cache = Cache.open(config, run)
    manifest, catalog = cache.manifest, cache.read_catalog()
    file = cache.storage.put("shard", [b"abc"])
    for task in cache.tasks(catalog)[:-1]:
        start, stop = task.inputs["start"], task.inputs["stop"]
        if task.inputs["kind"] == "caption":
            table = catalog.captions.slice(start, stop - start).drop_columns("caption")
        else:
            table = catalog.samples.slice(start, stop - start).rename_columns({"path": "source"})
        shared = {"kind": task.inputs["kind"], "field": task.inputs["field"], "shard": task.inputs["shard"],
                  "width": 1024, "height": 1024, "status": OK, "checksum": 2_654_435_761}  # fmt: skip
        manifest.commit(task, [{**shared, **row} for row in table.to_pylist()], file)


def status_query(manifest: Manifest, run: RunFolder) -> list[tuple[object, ...]]:
    """Rows by status and reason, as anyone may query them."""
    files = f"read_parquet('{run.cache}/manifest/*.parquet', union_by_name = true)"
    return duckdb.execute(f"SELECT kind, status, error, count(*) FROM {files} GROUP BY ALL").fetchall()


class WorkBegins(Exception):
    """Raised where the first task would be encoded."""


def resume(config: Config, run: RunFolder) -> None:
    """`lcm precompute` up to the moment it would load its encoders."""

    def begin(*_: object) -> NoReturn:
        raise WorkBegins

    stage.open_encoding = begin
    with suppress(WorkBegins):
        for _ in stage.precompute(config, run):
            pass
        raise AssertionError("there was nothing left to do")


def open_run(root: Path) -> tuple[Config, RunFolder]:
    """The preset for JourneyDB on the made-up annotations."""
    config, run = load_preset("microdit_xl_512", [f"data.root='{root / 'data set'}'"]), RunFolder(root / "run")
    run.open(config)
    return config, run


def step(name: str, root: Path) -> None:
    """One measured step, in a process of its own that tells its time and peak memory."""
    config, run = open_run(root)
    cache = Cache.open(config, run)
    if name == "catalog":
        _, seconds = timed(lambda: stage.number(cache))
        tasks = cache.tasks()
        assert len(tasks) > 1
    else:
        _, seconds = timed(lambda: resume(config, run))
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]))


def in_a_process(name: str, root: Path) -> tuple[float, float]:
    """Seconds and GB of a step."""
    command = [sys.executable, __file__, "--step", name, "--root", str(root)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step(arguments.step, arguments.root)
    else:
        measure(arguments.images)


def measure(images: int) -> None:
    """All steps one after the other in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_annotations(root / "data set" / ANNOTATIONS, images)
        catalog_seconds, catalog_gb = in_a_process("catalog", root)
        config, run = open_run(root)
        cache = Cache.open(config, run)
        manifest, catalog = cache.manifest, cache.read_catalog()
        encodes = len(catalog.captions) / len(catalog.samples)
        commit_all_but_last(config, run)
        resume_seconds, resume_gb = in_a_process("resume", root)
        loose, loose_seconds = timed(lambda: status_query(manifest, run))
        _, compaction_seconds = timed(lambda: list(compact(manifest)))
        merged, status_seconds = timed(lambda: status_query(manifest, run))
        assert sorted(map(str, merged)) == sorted(map(str, loose))
        compacted_resume_seconds, _ = in_a_process("resume", root)
    print(f"{len(catalog.samples)} images; resume {resume_gb:.2f} GB")
    print(f"loose parts: status query {loose_seconds:.2f} s; compaction {compaction_seconds:.1f} s")
    print(f"compacted: resume {compacted_resume_seconds:.2f} s")
    print(
        f"catalog_seconds={catalog_seconds:.0f} catalog_gb={catalog_gb:.2f} encodes_per_image={encodes:.4f} "
        f"resume_seconds={resume_seconds:.1f} status_query_seconds={status_seconds:.2f}"
    )


if __name__ == "__main__":
    main()
