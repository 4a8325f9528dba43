"""Which Python `make` builds its environments with."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["python3.11", "python3.12"], "python3.11"),
        (["python3.12"], "python3.12"),
        (["python3.13", "python3"], "python3.13"),
        (["python3"], "python3"),
    ],
)
def test_the_first_python_that_runs_is_taken(tmp_path, there, chosen):
    (tmp_path / "python3.11").write_text("#!/bin/sh\nexit 127\n")  # a shim of a version that is not installed
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n")
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    make = shutil.which("make")
    assert make is not None
    words = [make, "--dry-run", "--always-make", "--file", ROOT / "Makefile", "install"]
    environment = {"PATH": str(tmp_path)}  # and nothing of a `make` that runs this test
    planned = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert planned.splitlines()[0] == f"{chosen} -m venv .venv"
