"""What the command line says of itself."""

import os
import shlex
import subprocess
import sys
from importlib import metadata

import pytest
import typer

from lcm_distill.cli import app
from lcm_distill.commands.examples import EXAMPLES
from lcm_distill.commands.usage import usage_line
from tests.command_line import lcm

WIDTH = 78
"""Columns of a line of help on an ordinary terminal."""


def commands(group, *words: str) -> list[str]:
    """Names of all commands, those of groups after the group's."""
    return [
        name
        for word, command in group.commands.items()
        for name in (commands(command, word) if hasattr(command, "commands") else [" ".join([*words, word])])
    ]


def test_every_command_has_examples():
    assert sorted(commands(typer.main.get_command(app))) == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_shows_examples_that_the_command_takes(monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    shown = lcm(*name.split(), "-h").stdout
    assert shown == lcm(*name.split(), "--help").stdout
    for line in EXAMPLES[name]:
        assert line in shown and len(line) <= WIDTH
        program, *words = shlex.split(line)
        assert program == "lcm" and words[: len(name.split())] == name.split()
        command = typer.main.get_command(app)
        for word in name.split():
            command = command.commands[word]  # pyright: ignore[reportAttributeAccessIssue]
        command.make_context(name, words[len(name.split()) :])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["inspect", "--csv", "--run", "x"],
            "lcm: Missing argument 'sql' (Query over samples, captions, manifest, events, images, scores, metrics, "
            'guidance), as in `lcm inspect "FROM metrics" --run runs/shapes --csv`: see `lcm inspect --help`',
        ),
        (
            ["status"],
            "lcm: Missing option '--run' (Run folder), as in `lcm status --run runs/shapes`: see `lcm status --help`",
        ),
        (
            ["cache", "pull"],
            "lcm: Missing option '--run' (Run folder), as in `lcm cache pull --run runs/microdit_xl_512`: see "
            "`lcm cache pull --help`",
        ),
    ],
)
def test_what_is_missing_is_said_with_an_example(words, line):
    refused = subprocess.run([sys.executable, "-m", "lcm_distill", *words], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr) == (2, line + "\n")


@pytest.mark.parametrize(("given", "meant"), [("difusers", " (did you mean 'diffusers'?)"), ("tiff", "")])
def test_a_choice_that_an_option_does_not_have_is_said_with_the_one_that_is_meant(given, meant):
    with pytest.raises(typer.BadParameter) as refused:
        app(["export", "--run", "x", "--format", given], standalone_mode=False, prog_name="lcm")
    assert usage_line(refused.value, []) == (
        f"Invalid value for '--format': '{given}' is not one of 'safetensors', 'sharded', 'pt', 'diffusers', 'onnx'"
        f"{meant}: see `lcm export --help`"
    )


@pytest.mark.parametrize("group", ["cache", "config"])
def test_help_of_a_group_shows_the_examples_of_its_commands(monkeypatch, group):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    lines = [line for name in EXAMPLES if name.split()[0] == group for line in EXAMPLES[name]]
    assert len(lines) >= 2 and [line for line in lcm(group, "--help").stdout.splitlines() if f" lcm {group} " in line][
        -len(lines) :
    ] == [f" {line}".ljust(80) for line in lines]


NEEDY = ["export", "status", "inspect", "compare", "report", "verify", "fetch", "config diff", "cache compact",
         "cache pull"]  # fmt: skip
"""Commands that cannot do without an argument or an option."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_says_what_it_lacks(name):
    command = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]  # pyright: ignore[reportAttributeAccessIssue]
    required = [parameter for parameter in command.params if parameter.required]
    assert bool(required) == (name in NEEDY)
    if required:
        with pytest.raises(typer.BadParameter) as refused:
            app(name.split(), standalone_mode=False, prog_name="lcm")
        said = usage_line(refused.value, name.split())
        assert said.startswith("Missing ") and f", as in `{EXAMPLES[name][0]}`: see `lcm {name} --help`" in said


def test_commands_are_grouped(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    lines = lcm("--help").stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("╭")] == [
        "Options",
        "Stages",
        "Use",
        "Inspect",
        "Maintain",
    ]


def test_version():
    assert lcm("--version").stdout == f"lcm-distill {metadata.version('lcm-distill')}\n"


def test_the_package_is_a_program():
    code = [sys.executable, "-m", "lcm_distill"]
    assert (
        subprocess.run([*code, "--version"], capture_output=True, text=True, check=True).stdout
        == lcm("--version").stdout
    )
    refused = subprocess.run([*code, "statuss"], capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.endswith("see `lcm --help`\n")


@pytest.mark.parametrize(
    ("name", "default", "other"),
    [
        ("OMP_WAIT_POLICY", "passive", "active"),
        ("PYTORCH_ENABLE_MPS_FALLBACK", "1", "0"),
        ("ARROW_DEFAULT_MEMORY_POOL", "system", "mimalloc"),
    ],
)
def test_what_libraries_read_at_their_import_is_set_before_unless_it_is_already(name, default, other):
    """Threads that wait do not spin, operators that Metal lacks are computed on the CPU, and Arrow keeps no memory."""
    code = (
        "import os, sys; sys.argv = ['lcm', '--version']; from lcm_distill.cli import main\n"
        f"try: main()\nfinally: print(os.environ[{name!r}], 'torch' in sys.modules or 'pyarrow' in sys.modules)"
    )
    plain = {key: value for key, value in os.environ.items() if key != name}
    for given, used in ((plain, default), (plain | {name: other}, other)):
        printed = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
        assert printed.stdout.splitlines()[-1] == f"{used} False"
