"""The command line, run in this process."""

from collections.abc import Iterable

from typer.testing import CliRunner, Result

from lcm_distill.cli import app


def lcm(*arguments: object) -> Result:
    """The result of a command."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shapes(assignments: Iterable[str]) -> list[str]:
    """Options of the `shapes` preset with these assignments."""
    return ["--preset", "shapes", *(word for assignment in assignments for word in ("--set", assignment))]
