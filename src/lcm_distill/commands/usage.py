"""What is said of a command line that names no command's options and arguments as they are."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from lcm_distill.commands.examples import EXAMPLES

WRONG_CHOICE = re.compile(r"'([^']*)' is not one of ('.*')$")
"""What typer says of a value that an option does not have, and of those that it has."""


def usage_line(error: Any, words: Collection[str]) -> str:
    """A usage error in one line; of what is missing also what it is, and an example of the command.

    Args:
        error: of typer's, whose classes for it are not public.
        words: those that were given; of several examples the one is shown that shares most of them.
    """
    command = error.ctx.command_path if error.ctx else "lcm"
    message = _with_suggestion(error.format_message().rstrip(".").replace(": Value error, ", ": "))
    if type(error).__name__ == "MissingParameter" and error.param is not None:
        about = str(getattr(error.param, "help", None) or "").rstrip(". ")
        examples = EXAMPLES[command.removeprefix("lcm ")]
        example = max(examples, key=lambda line: len({*line.split()} & {*words}))
        message += f"{f' ({about})' if about else ''}, as in `{example}`"
    return f"{message}: see `{command} --help`"


def _with_suggestion(message: str) -> str:
    """What is said of a wrong choice, with the one that is meant, if one is near."""
    if found := WRONG_CHOICE.search(message):
        value, known = found.group(1), re.findall(r"'(.*?)'", found.group(2))
        message += "".join(f" (did you mean {close!r}?)" for close in get_close_matches(value, known, n=1))
    return message
