"""The scripts for the stand-in assets run."""

import runpy
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_measuring_the_shapes_assets(capsys):
    runpy.run_path(str(SCRIPTS / "measure_shapes_assets.py"))["main"](4)
    lines = capsys.readouterr().out.splitlines()
    beginnings = [line.split(":")[0] for line in lines]
    assert beginnings == [
        "real against real", "real",
        *(f"text tower, {name} by linear probe" for name in ("shape", "colour", "size", "position", "background")),
        "VAE",
        *(f"{kind} captions, {sampling}, guidance 2" for kind in ("full", "brief")
          for sampling in ("18 heun steps", "4 euler steps", "2 euler steps", "1 euler step")),
    ]  # fmt: skip
    assert "shape and colour 1.0000" in lines[1]


@pytest.mark.slow
def test_an_exact_student_answers_as_its_teacher_in_one_step_and_without_fresh_noise(finished_run, capsys):
    runpy.run_path(str(SCRIPTS / "measure_exact_student.py"))["main"](finished_run.root, 2)
    lines = capsys.readouterr().out.splitlines()
    slopes = {line.split(":")[0]: float(line.partition("mean slope ")[2].split(",")[0]) for line in lines}
    assert slopes.pop("consistency, 80") == pytest.approx(1, abs=0.05)
    assert len(slopes) == 8
    without = {sigmas: slope for sigmas, slope in slopes.items() if sigmas.startswith("deterministic")}
    assert list(without.values()) == pytest.approx([1] * 4, abs=0.2)
