"""Captions that a protocol cannot measure are found before a training, and the page of a run names them."""

import html

import pytest

from lcm_distill import assets
from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.ablate import ablate
from tests.command_line import lcm, shapes
from tests.foreign import Zeros, image_bytes


@pytest.fixture
def own(tmp_path, monkeypatch) -> list[str]:
    """Assignments of a data set of 8 images, half of which are held out, and a teacher that is said to be of them."""
    monkeypatch.setattr("lcm_distill.data.cache.encoding.ConfiguredEncoders", Zeros)
    (tmp_path / "images").mkdir()
    for n in range(8):
        (tmp_path / "images" / f"{n}.jpg").write_bytes(image_bytes(n))
        (tmp_path / "images" / f"{n}.txt").write_text(f"a photo of dog {n}")
    data = ["data.source=folder", f"data.root='{tmp_path}/images'", "data.valid_fraction=0.5"]
    return [*data, f"model.teacher='{assets.TEACHER}'", "evaluate.images=2"]


def test_before_a_run_trains(tmp_path, own):
    refused = lcm("run", *shapes(own), "--run", tmp_path / "run")
    assert refused.exit_code == 2
    told = refused.stderr.strip().splitlines()[-1]
    assert "lcm: evaluate.protocols: shapes cannot measure caption 'a photo of dog " in told
    run = RunFolder(tmp_path / "run")
    assert run.cache.is_dir() and not run.distill.exists()
    lcm("report", "--run", run.root)
    page = html.unescape((run.root / "report.html").read_text())
    assert "figures and response to guidance (shapes cannot measure caption 'a photo of dog " in page
    assert "run --images-only</code> makes images alone" in page and "(<code>lcm evaluate</code>)" not in page


def test_before_an_ablation_trains(tmp_path, own):
    run, config = RunFolder(tmp_path / "run"), load_preset("shapes", own)
    run.open(config)
    with pytest.raises(UserError, match=r"evaluate\.protocols: shapes cannot measure caption 'a photo of dog "):
        list(ablate(config, run, [], 1, Serial()))
