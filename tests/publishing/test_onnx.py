"""Graphs compute what their modules compute, and the example generates the package's own images without it."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

from lcm_distill import assets
from lcm_distill.api import LatentConsistencyModel, open_model
from lcm_distill.commands import weights
from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.diffusion.few_step_samplers import Deterministic
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.publishing import export_folder, onnx_folder
from lcm_distill.publishing.export_folder import GRAPHS, require_place
from lcm_distill.publishing.onnx_folder import write_graph
from tests.command_line import lcm
from tests.documents import ROOT, lines

COMMANDS = lines("docs/onnx.md", "sh")
ALONE = "import runpy, sys; sys.modules.update(dict.fromkeys(('lcm_distill', 'torch', 'transformers'))); {}"


class Counting(nn.Module):
    """Computes something else at each call, which no graph does."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def test_a_graph_is_compared_with_its_module(tmp_path):
    examples = [{"x": torch.tensor([0.5])}, {"x": torch.tensor([-2.0])}]
    write_graph(tmp_path / "clipped.onnx", nn.Hardtanh(-1, 1), examples, "y")
    with pytest.raises(UserError, match="apart from the model"):
        write_graph(tmp_path / "counting.onnx", Counting(), examples, "y")


@pytest.fixture
def run(tmp_path) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "shapes")
    run.open(load_preset("shapes"))
    run.student.write_bytes(assets.STUDENT.read_bytes())
    return run


def test_what_cannot_be_written_is_refused_in_a_line(run, tmp_path, monkeypatch):
    words = ["export", "--run", run.root, "--format", "onnx", "--out", tmp_path / "folder"]
    refused = lcm(*words, "--teacher", "shapes")
    assert refused.exit_code == 2 and "onnx writes students: leave out --teacher" in refused.output
    monkeypatch.setattr(export_folder, "find_spec", lambda name: None if name == "onnxscript" else name)
    refused = lcm(*words)
    assert refused.exit_code == 2 and "pip install 'lcm-distill[onnx]'" in refused.output
    assert not (tmp_path / "folder").exists()


def test_an_export_says_what_it_does_while_it_works(run, tmp_path, monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(weights, "working", lambda what: nullcontext(shown.append(what)))
    monkeypatch.setattr(onnx_folder, "write_onnx", lambda *_: None)
    words = ["export", "--run", run.root, "--format", "onnx", "--out", tmp_path / "folder"]
    assert lcm(*words).exit_code == 0
    assert shown == ["writing student, --format onnx"]


@pytest.mark.parametrize(
    ("holds", "words", "said"),
    [
        (None, [], "folder has no sampling.json: give a folder that `lcm export --format onnx` wrote"),
        ({}, [], "folder has no sampling.json: give"),
        ({"sampling.json"}, [], "folder has no tokenizer.json: give"),
        (GRAPHS - {"student.onnx"}, [], "folder has no student.onnx: give"),
        (GRAPHS, ["4", "many"], "the seed is many: give a whole number from 0 on"),
        (GRAPHS, ["9"], "no noise levels for 9 steps: choose 4"),
    ],
)
def test_the_example_refuses_what_is_no_export_in_one_line(tmp_path, monkeypatch, holds, words, said):
    monkeypatch.chdir(tmp_path)
    if holds is not None:
        Path("folder").mkdir()
    for name in holds or ():
        (Path("folder") / name).write_text('{"default_steps": 4, "sigmas": {"4": []}}')
    monkeypatch.setattr(sys, "argv", ["draw_with_onnx.py", "folder", "a ring", "ring.png", *words])
    with pytest.raises(SystemExit) as refused:
        runpy.run_path(str(ROOT / "examples/draw_with_onnx.py"))
    assert str(refused.value).startswith(said)


def test_an_export_takes_the_place_of_an_earlier_one_alone(tmp_path):
    for name in GRAPHS:
        (tmp_path / name).write_text('{"student_sha256": "0"}')
    require_place(tmp_path)
    (tmp_path / "sampling.json").write_text("{}")
    with pytest.raises(UserError, match="no earlier export wrote"):
        require_place(tmp_path)


def own_image(caption: str, steps: int, seed: int, fresh_noise: bool) -> np.ndarray:
    """The package's image from numpy's noise, uint8 (H, W, 3)."""
    model, random = open_model("shapes"), np.random.default_rng(seed)
    assert isinstance(model, LatentConsistencyModel)
    sampler = model.sampler(steps)
    if not fresh_noise:
        sampler = Deterministic(sampler.sigmas, model.diffusion.sigma_min)
    denoiser = model.denoiser(model.encode([caption]), load_preset("shapes").evaluate.guidance[0])
    with torch.inference_mode():
        noise = lambda _: torch.from_numpy(random.standard_normal((1, 8, 8, 8), np.float32))  # noqa: E731
        image = model.image_encoder.decode(sampler(denoiser, noise))[0]
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def differs(path: Path, image: np.ndarray) -> int:
    with Image.open(path) as drawn:
        return int(np.abs(np.asarray(drawn).astype(int) - image).max())


@pytest.mark.slow
def test_the_page_works(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", "examples")
    (_, *export), *drawings = COMMANDS
    result = lcm(*export)
    assert result.exit_code == 0, result.output
    for _, script, *arguments in drawings:
        call = f"sys.argv = {[script, *arguments]}; runpy.run_path({script!r})"
        subprocess.run([sys.executable, "-c", ALONE.format(call)], check=True)
    assert [len(each) for each in drawings] == [5, 7]
    assert differs(Path("heart.png"), own_image(drawings[0][3], 4, 0, True)) <= 1
    assert differs(Path("star.png"), own_image(drawings[1][3], 2, 7, True)) <= 1

    settings = Path("student-onnx/sampling.json")
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"sampler": "deterministic"}))
    _, script, *arguments = drawings[1]
    subprocess.run([sys.executable, script, *arguments], check=True)
    assert differs(Path("star.png"), own_image(drawings[1][3], 2, 7, False)) <= 1

    tokenizer, tokenize = Tokenizer.from_file("student-onnx/tokenizer.json"), open_model("shapes").text_encoder.tokenize
    assert len(tokenizer.encode("a small red star " * 30).ids) == tokenize(["a"]).shape[1]
    (usage,) = re.findall(r"```python\n(.*?)```", Path("student-onnx/README.md").read_text(), re.DOTALL)
    subprocess.run([sys.executable, "-c", ALONE.format("pass") + "\n" + usage], check=True)
