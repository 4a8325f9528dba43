"""The command line, run in this process or in one of its own."""

import re
import sys
from collections.abc import Iterable

from typer.testing import CliRunner, Result

from lcm_distill.cli import app

PROCESS = [sys.executable, "-c", "from lcm_distill.cli import main; main()"]
"""A process of its own; the command's words follow."""


def lcm(*arguments: object) -> Result:
    """The result of a command."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def settings(assignments: Iterable[str]) -> list[str]:
    """Options that set keys of the configuration."""
    return [word for assignment in assignments for word in ("--set", assignment)]


def shapes(assignments: Iterable[str]) -> list[str]:
    """Options of the `shapes` preset with these assignments."""
    return ["--preset", "shapes", *settings(assignments)]


def without_styles(text: str) -> str:
    """Text without the sequences that a terminal obeys."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
