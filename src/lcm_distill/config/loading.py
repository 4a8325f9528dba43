"""Configurations from the presets that ship and from files."""

from collections.abc import Sequence
from importlib import resources
from itertools import takewhile
from pathlib import Path

from lcm_distill.config.parsing import parse_section
from lcm_distill.config.run import Config
from lcm_distill.core.errors import UserError
from lcm_distill.core.regular_files import read_regular

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


def load_preset(name: str, assignments: Sequence[str] = ()) -> Config:
    """A preset by name, changed by `section.key=value` assignments.

    Raises:
        UserError: the preset, a key or a value is wrong.
    """
    return parse(_preset_text(name), f"preset {name}", assignments)


def _preset_text(name: str) -> str:
    if name not in presets():
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(presets())}")
    return (resources.files("lcm_distill.config") / "presets" / f"{name}.toml").read_text()


def load_file(path: Path, assignments: Sequence[str] = ()) -> Config:
    """A configuration file in the presets' form, changed by `section.key=value` assignments.

    Raises:
        UserError: the file is missing or is no text of a configuration, or a key or value is wrong.
    """
    if not path.is_file():
        raise UserError(f"configuration {path} is missing: give the path of a file in the presets' form")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path} is no configuration: it is larger than {LARGEST_FILE:,} bytes: give another file")
    try:
        text = read_regular(path).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): convert it, or give another file") from error
    return parse(text, str(path), assignments)


def parse(text: str, origin: str, assignments: Sequence[str] = ()) -> Config:
    """A configuration from TOML text; `origin` names it in errors."""
    return parse_section(Config, text, origin, assignments)
