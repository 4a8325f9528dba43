"""docs/own-images.md works: its commands, in their order, on images that nobody drew for this package."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lcm_distill.commands.run_choice import Choice
from lcm_distill.config import load_preset
from tests.command_line import lcm
from tests.documents import commands

COMMANDS = commands("docs/own-images.md", "sh")
QUICK = {
    "precompute": ["data.valid_fraction=0.4"],
    "pretrain": ["pretrain.steps=4", "pretrain.batch_size=8", "pretrain.checkpoint_every=2", "pretrain.warmup_steps=1"],
    "distill": ["distill.steps=4", "distill.batch_size=8", "distill.checkpoint_every=2", "engine.validate_every=2",
                "engine.validation_images=2", "evaluate.teacher=[['euler', 2]]", "evaluate.student_steps=[1]"],
    "evaluate": ["evaluate.images=4", "evaluate.batch_size=4", "evaluate.teacher=[['euler', 2]]",
                 "evaluate.student_steps=[1]"],
}  # fmt: skip
LONGER = [["distill.steps=2", "distill.batch_size=2"], ["distill.steps=4"]]
"""Two steps, then four; all else is as the page has it, whose preset must need what the page gives."""
NO_FIGURES = "validation: shapes cannot measure caption 'a photo of dog.*: validations have a grid of images, and no"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, random = tmp_path / "my-images", np.random.default_rng(0)
    folder.mkdir()
    for number in range(24):
        pixels = random.integers(0, 256, (70, 90, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.{'jpg' if number % 2 else 'png'}")
        (folder / f"{number:04d}.txt").write_text(f"a photo of dog number {number}\n")
    return tmp_path


def test_the_walk(here):
    preset = load_preset("shapes").distill
    assert len(COMMANDS) == 12 and preset.matching.weight > 0 and preset.adversarial.weight > 0
    longer = iter(LONGER)
    for command, *words in COMMANDS:
        settings = next(longer) if "runs/longer" in words else QUICK.get(command, [])
        quick = [word for assignment in settings for word in ("--set", assignment)]
        with pytest.warns(UserWarning, match=NO_FIGURES) if command == "distill" else nullcontext():
            result = lcm(command, *words, *quick)
        assert result.exit_code == 0, (command, words, result.output)
        if "--dry-run" in words:
            assert "pairs" in result.output and not Path("runs/mine").exists()
    config, run = Choice(run=Path("runs/mine")).load()
    assert config.model.teacher == "runs/mine/teacher.safetensors" and run.student.is_file()
    continued = json.loads(lcm("status", "--run", "runs/longer", "--json").stdout)["distill"]
    assert (continued["steps"], continued["done"]) == (4, 4) and Path("runs/longer/student.safetensors").is_file()
    assert Path("student.png").is_file() and Path("runs/mine/report.html").is_file()
    assert 'pipeline("a photo of dog number ' in Path("my-student/README.md").read_text()
    validations = sorted((run.distill / "validation").glob("step-*"))
    assert [(place.name, len(pq.read_table(place / "metrics.parquet"))) for place in validations] == [
        ("step-0000002", 0), ("step-0000004", 0),
    ]  # fmt: skip
    assert all((place / "grid.png").is_file() for place in validations)
    sets = sorted(path.name for path in run.evaluate.iterdir() if (path / "manifest").is_dir())
    assert [name.partition("-")[0] for name in sets] == ["student", "teacher", "untrained"]
