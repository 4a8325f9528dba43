"""Every command with every wrong use: one line, exit code 2, 3 or 4, and nothing is changed."""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from lcm_distill.cli import app
from tests.command_line import shapes
from tests.faults.commands import Ended, lcm

HUGE = "9" * 400
NUMBERS = ("nan", "inf", "-inf", "-1", "1e999", HUGE, "", "x", "0x10", "1,,2", "1;2", "[/b]", "\x1b[31m",
           "1,nan", "0,-3")  # fmt: skip
TEXTS = ("", " ", "nowhere", "/dev/null", "/proc/self/mem", "folder", "file", "text.txt", "\x1b[2J[/b]",
         "a" * 5000, "\udcff", "../..", "*", "{}", "nowhere/deeper", "file/deeper", "packed.parquet",
         "wrong.safetensors",         "damaged", "nested.toml", "latin.toml", "empty")  # fmt: skip
SETTINGS = ("", "=", "=1", "seed", "seed=nan", "seed=-1", f"seed={HUGE}", "no.such=1", "data=1", "data.images=nan",
            "data.images=inf", "data.images=-1", "data.images=1e999", "data.images.deeper=1", "encoders.vae=[/b]",
            "distill.steps=0", "distill.learning_rate=nan", "evaluate.student_steps=[]", "evaluate.teacher=[[[1]]]",
            "evaluate.guidance=[nan]", "model.latent_size=0", "seed=" + "[" * 5000, "a." * 3000 + "b=1",
            "\x1b[31m=1", "evaluate.reference={x='\udcff'}", "data.resolutions=[]", "diffusion.sigma_max=nan",
            "device=no-such", "cache.location=s4://x", "schedule.samples=-1")  # fmt: skip
REQUIRED = {"sql": "SELECT 1", "runs": "run", "run": "run", "to": "fetched"}
"""Values of what a command cannot do without; `run` also where it can, so that the run that is here is used."""
ALWAYS = {"ablate": ["--dry-run"], "fetch": ["--dry-run"], "compare-samplers": ["--steps=1", "--solver=euler"],
          "sample": ["--steps=1"]}  # fmt: skip
"""So that a wrong value which happens to be right makes no hours of work, and no downloads."""


def commands(group: Any = None, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the application with its words."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        yield from commands(command, *words, name) if hasattr(command, "commands") else [((*words, name), command)]


def wrong_values(parameter) -> tuple[str, ...]:
    if parameter.name == "set":
        return SETTINGS
    if getattr(parameter, "is_flag", False):
        return ()
    return (*NUMBERS, *TEXTS)


def uses() -> list[tuple[str, ...]]:
    """Command lines that are right but for one value."""
    found: list[tuple[str, ...]] = []
    for words, command in commands():
        parameters = [parameter for parameter in command.params if parameter.name != "help"]
        for parameter in parameters:
            others = [word for other in parameters if other is not parameter for word in _right(other)]
            before = (*words, *ALWAYS.get(words[0], ()), *others)
            found += [(*before, *_given(parameter, value)) for value in wrong_values(parameter)]
        found += [(*words, "--no-such"), (*words, *(["one"] * 40)), (*words, "[/b]", "\x1b[2J")]
    return [*found, ("no-such",), ("[/b]",), ("\x1b[31m",), ("--log-level", "loud", "status"), ("--log-level",), ("",)]


def _right(parameter) -> list[str]:
    if parameter.name in REQUIRED and (parameter.required or parameter.name == "run"):
        return _given(parameter, REQUIRED[parameter.name])
    return []


def _given(parameter, value: str) -> list[str]:
    option = parameter.opts[-1] if parameter.param_type_name == "option" else None
    return [f"{option}={value}"] if option else [value]


TINY = ["data.images=24", "data.valid_fraction=0.5", "cache.shard_rows=16", "encoders.batch_size=8", "distill.steps=2",
        "distill.batch_size=4", "distill.checkpoint_every=2", "distill.matching.weight=0",
        "distill.adversarial.weight=0", "evaluate.images=4",
        "evaluate.shard_images=4", "evaluate.batch_size=4", "evaluate.teacher=[['euler', 1]]",
        "evaluate.student_steps=[1]", "evaluate.protocols=[]"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a small finished run and files that are not what commands want."""
    place = tmp_path_factory.mktemp("usage")
    assert lcm("run", *shapes(TINY), "--run", place / "run").is_clean(0)
    (place / "folder").mkdir()
    (place / "empty").touch()
    (place / "file").write_bytes(bytes(range(256)))
    (place / "text.txt").write_text("a caption \x1b[31m [/b]\n")
    (place / "packed.parquet").write_bytes((place / "run/cache/catalog/samples.parquet").read_bytes())
    (place / "wrong.safetensors").write_bytes(b"\xff" * 64)
    (place / "nested.toml").write_text("a = " + "[" * 10_000)
    (place / "latin.toml").write_bytes('preset = "é"'.encode("latin-1"))
    (place / "damaged").mkdir()
    (place / "damaged/config.toml").write_text("preset = 3")
    return place


def everything(place: Path) -> dict[Path, bytes | None]:
    """Files with their content, and folders, but for logs, which tell of refusals as well."""
    paths = [path for path in place.rglob("*") if "logs" not in path.parts]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def ends(place: Path, *words: str) -> Ended:
    """How a command ends in this folder."""
    return lcm(*words, fault=partial(os.chdir, str(place)), seconds=60)


@pytest.mark.trials(full=400, sample=12)
def test_wrong_use_is_refused_in_one_line(trials, place, tmp_path):
    """Every option and argument of every command with a wrong value."""
    all_uses = uses()
    order = trials.random.permutation(len(all_uses))
    before, here = everything(place), tmp_path / "here"
    before = {path.relative_to(place): content for path, content in before.items()}
    for trial in trials:
        words = all_uses[order[trial % len(order)]]
        if not here.exists():
            shutil.copytree(place, here)
        ended = ends(here, *words)
        assert ended.is_clean(0, 2, 3, 4), (words, ended)
        assert "\x1b" not in ended.errors + ended.output, words
        if ended.code:
            after = {path.relative_to(here): content for path, content in everything(here).items()}
            assert after == before, words
            assert sum(line.startswith("lcm: ") for line in ended.errors.splitlines()) == 1, (words, ended)
            trials.count("refused")
        else:
            shutil.rmtree(here)
            trials.count("accepted")
