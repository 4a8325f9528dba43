"""The README and the pages of docs/: their blocks, the commands in these, and what stands in their prose."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
"""Text by path. Blocks of `sh`, `python`, `sql` and `diff` are run; those of `text` need what a test has not."""

KINDS = {"sh", "text", "python", "sql", "diff"}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FULL_SIZE = "microdit_xl_512"
"""A preset whose weights and data no test has; it can be planned."""


def blocks(page: str, kind: str) -> list[str]:
    """Contents of a page's fenced blocks of a kind."""
    return [block for found, block in FENCED.findall(PAGES[page]) if found == kind]


def lines(page: str, *kinds: str) -> list[list[str]]:
    """Words of each line in a page's blocks of these kinds, continued ones joined, comments and empty lines aside."""
    joined = [block.replace("\\\n", "") for kind in kinds for block in blocks(page, kind)]
    found = [line for block in joined for line in block.splitlines()]
    return [words for line in found if (words := shlex.split(line, comments=True))]


def commands(page: str, *kinds: str, launched: bool = True) -> list[list[str]]:
    """Words after `lcm` in each of the lines that have it, or only in those that begin with it."""
    found = [(words.index("lcm"), words) for words in lines(page, *kinds) if "lcm" in words]
    return [words[where + 1 :] for where, words in found if launched or where == 0]


def prose(page: str) -> str:
    """A page without its blocks, in one line."""
    return " ".join(FENCED.sub("", PAGES[page]).split())


def code_in_prose(page: str) -> list[str]:
    """What stands in backticks, one pair of them, outside of blocks."""
    return re.findall(r"`([^`]+)`", prose(page))
