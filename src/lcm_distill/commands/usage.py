"""What is said of a command line that names no command's options and arguments as they are."""

from collections.abc import Collection
from typing import Any

from lcm_distill.commands.examples import EXAMPLES


def usage_line(error: Any, words: Collection[str]) -> str:
    """A usage error in one line; of what is missing also what it is, and an example of the command.

    Args:
        error: of typer's, whose classes for it are not public.
        words: those that were given; of several examples the one is shown that shares most of them.
    """
    command = error.ctx.command_path if error.ctx else "lcm"
    message = error.format_message().rstrip(".")
    if type(error).__name__ == "MissingParameter" and error.param is not None:
        about = str(getattr(error.param, "help", None) or "").rstrip(". ")
        examples = EXAMPLES[command.removeprefix("lcm ")]
        example = max(examples, key=lambda line: len({*line.split()} & {*words}))
        message += f"{f' ({about})' if about else ''}, as in `{example}`"
    return f"{message}: see `{command} --help`"
