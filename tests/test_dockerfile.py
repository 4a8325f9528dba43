"""What the Dockerfile copies, installs and starts is there; nothing here builds it."""

import os
import re
import subprocess
import tomllib
from inspect import signature
from pathlib import Path

from packaging.specifiers import SpecifierSet

from lcm_distill.commands.images import serve

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
    tested = (ROOT / "docs" / "versions.md").read_text()
    assert re.search(rf"Python {re.escape(version)}\.\d+ .*what `constraints\.txt` pins", tested)


def test_another_build_than_cpu_or_cuda_is_refused():
    (case,) = [run for run in arguments("RUN") if run.startswith("case ")]
    found = {
        torch: subprocess.run(["sh", "-c", case.replace("apt-get", "true").replace("rm -rf", "true")],
                              env={"TORCH": torch, "PATH": os.environ["PATH"]}, capture_output=True, text=True)
        for torch in ("cpu", "cuda", "gpu")
    }  # fmt: skip
    assert {torch: done.returncode for torch, done in found.items()} == {"cpu": 0, "cuda": 0, "gpu": 1}
    assert found["gpu"].stderr.strip() == "TORCH is gpu: it must be cpu or cuda"


def test_commands_in_its_head_exist_and_reach_the_page():
    commands = re.findall(r"^#.* lcm-distill ((?:run|serve) .*?)(?:  |$)", "\n".join(LINES), re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["run", "serve"]
    (port,) = re.findall(r"--publish 127\.0\.0\.1:(\d+):\1 ", "\n".join(LINES))
    assert signature(serve).parameters["port"].default == int(port)
