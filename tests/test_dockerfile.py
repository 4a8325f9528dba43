"""What the Dockerfile copies, installs and starts is there; nothing here builds it."""

import re
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def arguments(instruction: str) -> list[str]:
    """What follows an instruction, each time."""
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{instruction} ")]


def test_what_is_copied_exists_and_reaches_docker():
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [source for words in arguments("COPY") for source in words.split()[:-1]]
    assert sent[0] == "*" and {line.removeprefix("!") for line in sent if line.startswith("!")} == set(copied)
    assert len(copied) == 5 and all((ROOT / source).exists() for source in copied)
    assert {PROJECT["readme"], "LICENSE", "src"} <= set(copied)


def test_what_is_installed_and_started_exists():
    (installed,) = re.findall(r"pip install .*--constraint (\S+) .*'\.\[(.*)\]'", " ".join(arguments("RUN")))
    constraints, extras = installed
    assert (ROOT / constraints).is_file() and set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert arguments("ENTRYPOINT") == [f'["{script}"]' for script in PROJECT["scripts"]]
    (base,) = arguments("FROM")
    version = base.removeprefix("python:").removesuffix("-slim")
    assert f"{version}.0" in SpecifierSet(PROJECT["requires-python"])
