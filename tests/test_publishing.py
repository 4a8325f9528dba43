"""docs/publishing.md works: its commands, and its snippets where the package cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lcm_distill import assets
from lcm_distill.config import load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm
from tests.documents import blocks, commands

COMMANDS, SNIPPETS = commands("docs/publishing.md", "sh"), blocks("docs/publishing.md", "python")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder in which `runs/shapes` has the student that ships."""
    run = RunFolder(tmp_path / "runs" / "shapes")
    run.open(load_preset("shapes"))
    run.student.write_bytes(assets.STUDENT.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_works(folder):
    assert len(COMMANDS) == 5 and len(SNIPPETS) == 4
    for words in COMMANDS:
        result = lcm(*words)
        assert result.exit_code == 0, result.output
    isolated = "import sys; sys.modules['lcm_distill'] = None\n" + "\n".join(SNIPPETS)
    homes = {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", isolated], env={**os.environ, **homes}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["0 80.0 (1, 8, 8, 8)", "1 3.0 (1, 8, 8, 8)"]
    assert (folder / "circle.png").is_file() and (folder / "teacher" / "README.md").is_file()
    assert (folder / "shapes-card.md").is_file()
