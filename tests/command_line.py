"""The command line, run in this process."""

from typer.testing import CliRunner, Result

from lcm_distill.cli import app


def lcm(*arguments: object) -> Result:
    """The result of a command."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
