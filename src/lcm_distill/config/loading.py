"""Configurations from the presets that ship and from files."""

from collections.abc import Sequence
from importlib import resources
from itertools import takewhile
from pathlib import Path

from lcm_distill.config.assignments import Assignment
from lcm_distill.config.parsing import parse_section
from lcm_distill.config.run import Config
from lcm_distill.core.errors import UserError
from lcm_distill.core.regular_files import open_regular

LARGEST_FILE = 1_000_000
"""Bytes of a configuration, which is a hundred times smaller."""


def presets() -> list[str]:
    """Names of the presets that ship."""
    folder = resources.files("lcm_distill.config") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def summary(name: str) -> str:
    """What a preset is for, in a sentence: the first one of its file."""
    lines = takewhile(lambda line: line.startswith("#"), _preset_text(name).splitlines())
    return " ".join(line.lstrip("# ") for line in lines).partition(". ")[0].rstrip(".") + "."


def load_preset(name: str, assignments: Sequence[Assignment] = ()) -> Config:
    """A preset by name, changed by `section.key=value` assignments.

    Raises:
        UserError: the preset, a key or a value is wrong.
    """
    return parse(_preset_text(name), f"preset {name}", assignments)


def require_preset(name: str) -> None:
    """Check that a preset ships.

    Raises:
        UserError: it does not.
    """
    if name not in presets():
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(presets())}")


def _preset_text(name: str) -> str:
    require_preset(name)
    return (resources.files("lcm_distill.config") / "presets" / f"{name}.toml").read_text()


def load_file(path: Path, assignments: Sequence[Assignment] = ()) -> Config:
    """A configuration file in the presets' form, changed by `section.key=value` assignments.

    Raises:
        UserError: the file is missing or is no text of a configuration, or a key or value is wrong.
    """
    _require(path, path.is_file())
    with open_regular(path) as file:
        text = _text(path, file.read(LARGEST_FILE + 1))
    return parse(text, str(path), assignments)


def read_given(path: Path) -> str:
    """The text of a configuration that the user names, which may be a pipe or a terminal, such as `/dev/stdin`.

    It is waited for, as whoever named it is about to write it; what is no regular file can be read only once.

    Raises:
        UserError: there is none, or it is no text of a configuration.
        OSError: it is a folder or a socket.
    """
    _require(path, path.exists())
    with path.open("rb") as file:
        return _text(path, file.read(LARGEST_FILE + 1))


def _require(path: Path, found: bool) -> None:
    if not found:
        raise UserError(f"configuration {path} is missing: give the path of a file in the presets' form")


def _text(path: Path, content: bytes) -> str:
    if len(content) > LARGEST_FILE:
        raise UserError(f"{path} is no configuration: it is larger than {LARGEST_FILE:,} bytes: give another file")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): convert it, or give another file") from error


def parse(text: str, origin: str, assignments: Sequence[Assignment] = ()) -> Config:
    """A configuration from TOML text; `origin` names it in errors."""
    return parse_section(Config, text, origin, assignments)
