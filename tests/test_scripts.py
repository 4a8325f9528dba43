"""The scripts for the stand-in assets run."""

import runpy
from pathlib import Path

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
