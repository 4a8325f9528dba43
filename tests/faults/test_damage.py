"""Files of a finished run are flipped, cut, emptied and exchanged: what reads them says so, or nothing changes."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.faults.commands import Ended, lcm

TINY = [
    "data.images=24", "data.valid_fraction=0.3", "cache.shard_rows=8", "distill.steps=2", "distill.batch_size=4",
    "distill.checkpoint_every=1", "distill.matching.weight=0",
    "distill.adversarial.weight=0", "evaluate.images=4", "evaluate.shard_images=2",
    "evaluate.batch_size=2", "evaluate.teacher=[['euler', 1]]", "evaluate.student_steps=[1]",
]  # fmt: skip

STATUS = "status --json"
SAMPLES = (
    "inspect --json 'SELECT count(DISTINCT caption) AS n FROM samples JOIN captions ON captions.row = caption_row'"
)
PARTS = "inspect --json 'SELECT task, status, count(*) AS n FROM manifest GROUP BY ALL ORDER BY ALL'"
RECORDS = "inspect --json 'SELECT count(*) AS n, sum(loss) AS loss FROM events'"
FIGURES = "inspect --json 'SELECT metric, model, value FROM metrics ORDER BY ALL'"
SAMPLE = "sample 'a red circle' --steps 1 --seed 1 --out {run}/made.png"
EXPORT = "export --out {run}/made.safetensors"
VERIFY, REPAIR = "verify", "verify --repair"
AGAIN = "distill --fresh"
"""Distillation from the cache, with neither student nor checkpoints."""

RESUME = "distill --from-checkpoint"
"""Distillation from the last checkpoint, without the student that it became."""
FOUND = ("made again", "checkpoint damaged")
"""What a command says that goes on without what is damaged."""


@dataclass(frozen=True)
class Kind:
    """A kind of file of a finished run.

    Attributes:
        pattern: of its path in the run folder.
        consumers: commands that read it.
        mend: commands that bring the run back; those that the refusals advise.
        delete: whether the advice is to delete the file first.
    """

    pattern: str
    consumers: tuple[str, ...]
    mend: tuple[str, ...]
    delete: bool = False


KINDS = [
    Kind("cache/catalog/*.parquet", ("precompute", AGAIN, SAMPLES, STATUS, VERIFY), (REPAIR,)),
    Kind("cache/manifest/*.parquet", ("precompute", AGAIN, PARTS, STATUS, VERIFY), (REPAIR,)),
    Kind("cache/*/zarr.json", (AGAIN, "precompute", VERIFY), (REPAIR,)),
    Kind("cache/*/c/*", (AGAIN, VERIFY), (REPAIR,)),
    Kind("student.safetensors", (SAMPLE, EXPORT, "evaluate", VERIFY), ("distill",)),
    Kind("metrics.parquet", (FIGURES, "evaluate", VERIFY), ("evaluate",), delete=True),
    Kind("evaluate/*/images-*/*", ("evaluate", VERIFY), ("evaluate",)),
    Kind("evaluate/*/*/*.npy", ("evaluate", VERIFY), ("evaluate",)),
    Kind("evaluate/reference/*.npz", ("evaluate",), ("evaluate",)),
    Kind("evaluate/*/manifest/*.parquet", ("evaluate", VERIFY), ("evaluate",)),
    Kind("distill/events/*.parquet", (RECORDS, STATUS, VERIFY), (), delete=True),
]
"""Kinds of files that results come from."""

SETTINGS = [
    Kind("distill/checkpoints/*", (RESUME, STATUS, VERIFY), (AGAIN,)),
    Kind("config.toml", (STATUS, SAMPLE, EXPORT, VERIFY), ()),
    Kind("images/*", ("precompute", AGAIN, VERIFY), ()),
    Kind("environment.json", (EXPORT, "evaluate", STATUS), ()),
]
"""Kinds of files that work begins or goes on from, or that describe it."""

OTHERS = ["grid.png", "report.html", "guidance.*", "logs/*", "distill/tensorboard/*"]
"""Files that are only looked at."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("damage") / "finished"
    settings = [word for assignment in TINY for word in ("--set", assignment)]
    ended = lcm("run", "--preset", "shapes", "--run", run, *settings, seconds=600)
    assert ended.is_clean(0), ended.errors
    return run


def files(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def test_every_file_of_a_run_has_a_kind(finished):
    read = [kind.pattern for kind in (*KINDS, *SETTINGS)]
    patterns = [*read, *OTHERS]
    assert [name for name in files(finished) if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in read if not any(fnmatch(name, pattern) for name in files(finished))] == []


def do(run: Path, consumer: str) -> Ended:
    """Run a command on a run folder."""
    if consumer == AGAIN:
        shutil.rmtree(run / "distill", ignore_errors=True)
        (run / "student.safetensors").unlink(missing_ok=True)
        consumer = "distill"
    if consumer == RESUME:
        (run / "student.safetensors").unlink(missing_ok=True)
        consumer = "distill"
    words = [quoted or plain for quoted, plain in re.findall(r"'([^']*)'|(\S+)", consumer.format(run=run))]
    return lcm(*words, "--run", run)


def outcome(run: Path, consumer: str, ended: Ended) -> object:
    """What a command makes, apart from times."""
    if consumer.startswith(("status", "inspect")):
        return re.sub(r'"rows_per_second": [^,]+, "seconds_left": [^,}]+', "", ended.output.replace(str(run), "RUN"))
    if consumer == SAMPLE:
        return (run / "made.png").read_bytes()
    if consumer == EXPORT:
        return (run / "made.safetensors").read_bytes()
    return results(run) if consumer != VERIFY else None


def results(run: Path) -> dict[str, object]:
    """Student, figures and images of a run."""
    kept = ("model", "metric", "value", "images", "sampler", "protocol")
    rows = pq.read_table(run / "metrics.parquet").select(kept).to_pylist() if (run / "metrics.parquet").exists() else []
    pictures = {name: (run / name).read_bytes() for name in files(run) if fnmatch(name, "evaluate/*.png")}
    return {"student": (run / "student.safetensors").read_bytes(), "figures": sorted(map(str, rows)), **pictures}


@pytest.fixture(scope="module")
def expected(finished, tmp_path_factory):
    """What commands make of the undamaged run, each computed when it is first asked for."""

    @cache
    def of(consumer: str) -> object:
        run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("sound") / "run"))
        ended = do(run, consumer)
        assert ended.is_clean(0), ended.errors
        return outcome(run, consumer, ended)

    return of


def damage(run: Path, name: str, others: list[str], how: str, random: np.random.Generator) -> str:
    """Damage a file; returns what was done."""
    content = bytearray((run / name).read_bytes())
    if how == "exchange":
        unlike = [other for other in others if (run / other).read_bytes() != content]
        if unlike:
            other = run / unlike[random.integers(len(unlike))]
            content = bytearray(other.read_bytes())
            other.write_bytes((run / name).read_bytes())
        else:
            how = "flip"
    if how == "flip":
        content[random.integers(len(content))] ^= 1 << random.integers(8)
    (run / name).write_bytes({"cut": content[: random.integers(1, len(content))], "empty": b""}.get(how, content))
    return how


HOW = ("flip", "flip", "flip", "cut", "exchange", "empty")


def plan(trials, kinds: list[Kind], names: list[str]) -> Iterator[tuple[Kind, list[str], str, list[str]]]:
    """The kind of each trial's file, all files of that kind, what is done to one of them, and two commands."""
    for trial in trials:
        kind, turn = kinds[trial % len(kinds)], trial // len(kinds)
        alike = [name for name in names if fnmatch(name, kind.pattern)]
        consumers = {kind.consumers[(turn + step) % len(kind.consumers)]: None for step in range(2)}
        yield kind, alike, HOW[(turn + trial) % len(HOW)], list(consumers)


@pytest.mark.trials(full=132, sample=2)
def test_damage_is_found_or_changes_nothing(trials, finished, expected, tmp_path):
    """A file of a finished run flipped, cut, emptied or exchanged with another; two commands that read it."""
    for number, (kind, alike, how, consumers) in enumerate(plan(trials, KINDS, files(finished))):
        run = Path(shutil.copytree(finished, tmp_path / str(number) / "run"))  # its name is part of images
        name = alike[trials.random.integers(len(alike))]
        how = damage(run, name, alike, how, trials.random)
        broken, found = Path(shutil.copytree(run, tmp_path / "broken")), []
        for consumer in consumers:
            ended = do(run, consumer)
            case = f"{how} {name}: {consumer}: {ended.code}\n{ended.errors[-600:]}"
            assert ended.is_clean(0, 3), case
            if ended.code == 0 and consumer != VERIFY:
                assert outcome(run, consumer, ended) == expected(consumer), case
            found.append(ended.code == 3 or any(words in ended.errors for words in FOUND))
            shutil.rmtree(run)
            shutil.copytree(broken, run)
        if any(found):
            mended(run, kind, name, expected)
        trials.count("detected" if any(found) else "harmless")
        shutil.rmtree(broken)
        shutil.rmtree(run)


def mended(run: Path, kind: Kind, name: str, expected) -> None:
    """Follow the advice, and every command succeeds with the results of the undamaged run."""
    if kind.delete:
        (run / name).unlink()
    for command in kind.mend:
        ended = do(run, command)
        assert ended.is_clean(0), f"{name}: {command}: {ended.code} {ended.errors[-600:]}"
    for consumer in (kind.consumers[0], VERIFY):
        ended = do(run, consumer)
        assert ended.is_clean(0), f"{name}: {consumer} after the remedy: {ended.errors[-600:]}"
        if consumer != VERIFY and kind.mend:
            assert outcome(run, consumer, ended) == expected(consumer), f"{name}: {consumer} after the remedy"


@pytest.mark.trials(full=64, sample=4)
def test_damage_of_settings_and_checkpoints(trials, finished, expected, tmp_path):
    """Checkpoints, config.toml, images and environment.json of a finished run damaged; a command that reads them.

    A configuration with another value is another configuration: nothing tells damage from an edit there, and nothing
    is lost, as all is the same once the file is put back.
    """
    for number, (kind, alike, how, (consumer, *_)) in enumerate(plan(trials, SETTINGS, files(finished))):
        run = Path(shutil.copytree(finished, tmp_path / str(number) / "run"))
        name = alike[trials.random.integers(len(alike))]
        how = damage(run, name, alike, how, trials.random)
        ended, settings = do(run, consumer), kind.pattern == "config.toml"
        case = f"{how} {name}: {consumer}: {ended.code}\n{ended.errors[-600:]}"
        assert ended.is_clean(0, 3, *([2] if settings else [])), case
        found = ended.code != 0 or any(words in ended.errors for words in FOUND)
        if settings:
            shutil.copy(finished / name, run / name)
            ended = do(run, consumer)
            assert ended.is_clean(0), case
        if ended.code == 0 and consumer != VERIFY:
            assert outcome(run, consumer, ended) == expected(consumer), case
        if found and not settings:
            mended(run, kind, name, expected)
        trials.count("detected" if found else "harmless")
        shutil.rmtree(run)
