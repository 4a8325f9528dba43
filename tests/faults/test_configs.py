"""Sizes and other values in files that describe somebody else's networks: wild ones are refused before they cost."""

import json
import resource
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.random import Generator

from lcm_distill import assets
from lcm_distill.config import load_file
from lcm_distill.encoders.vae import CONFIG as VAE_CONFIG
from lcm_distill.encoders.vae import WEIGHTS as VAE_WEIGHTS
from lcm_distill.models.checkpoint import read_tensors, serialise
from lcm_distill.models.student_description import StudentDescription
from tests.command_line import settings, shapes
from tests.faults.commands import Ended, lcm
from tests.openclip import small_clip, write_hub_folder

MEMORY = 12 << 30
"""Bytes of addresses that a command has; the sizes that are tried need more, or hours."""
NUMBERS = (0, -1, 1, 2, 3, 7, 33, 1_000, 65_536, 10**6, 10**9, 2**31, 2**63, 10**30, 1.5, 1e300, 1e-300)
OTHERS = ("x", None, True, {}, [], [[1]], [1] * 3, [8] * 50, [8] * 2_000, [10**6] * 4, {"a": 1})
CACHE = ["data.images=8", "data.valid_fraction=0.3", "cache.shard_rows=8", "encoders.batch_size=8", "device=cpu"]


def places(table: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every value in nested tables."""
    found = [(*before, key) for key in table]
    return found + [
        path for key in table if isinstance(table[key], dict) for path in places(table[key], (*before, key))
    ]


def changed(table: dict[str, Any], random: Generator) -> dict[str, Any]:
    """A copy of nested tables with another value in one place, most often a number."""
    copy = json.loads(json.dumps(table))
    paths = places(copy)
    *above, last = paths[random.integers(len(paths))]
    inner = copy
    for key in above:
        inner = inner[key]
    choices = NUMBERS if random.random() < 0.7 else OTHERS
    value = choices[random.integers(len(choices))]
    numbers = isinstance(inner[last], list) and inner[last] and value in NUMBERS
    inner[last] = [value, *inner[last][1:]] if numbers else value
    return copy


def ends(*words: object) -> Ended:
    """How a command with little memory ends."""
    return lcm(*words, fault=partial(resource.setrlimit, resource.RLIMIT_AS, (MEMORY, MEMORY)), seconds=60)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_hub_folder(small_clip(), tmp_path_factory.mktemp("clip"), "open_clip_model.safetensors")


@pytest.mark.trials(full=80, sample=2)
def test_wild_sizes_of_encoders(trials, clip, tmp_path):
    """A value in the configuration of a VAE or text encoder changed, with weights and without: refused, or used."""
    for trial in trials:
        folder, run = tmp_path / "encoder", tmp_path / "run"
        if trial % 2:
            shutil.copytree(clip, folder)
            described = json.loads((folder / "open_clip_config.json").read_text())
            (folder / "open_clip_config.json").write_text(json.dumps(changed(described, trials.random)))
            chosen = [f"encoders.text='openclip:local-dir:{folder}'"]
        else:
            folder.mkdir()
            shutil.copy(assets.VAE / VAE_WEIGHTS, folder)
            described = json.loads((assets.VAE / VAE_CONFIG).read_text())
            (folder / VAE_CONFIG).write_text(json.dumps(changed(described, trials.random)))
            chosen = [f"encoders.vae='{folder}'"]
        if trial % 6 > 3:
            chosen.append("encoders.weights='random'")
        ended = ends("precompute", *shapes([*CACHE, *chosen]), "--run", run)
        assert ended.is_clean(0, 2, 3), (trial, ended)
        trials.count("used" if ended.code == 0 else "refused")
        shutil.rmtree(folder)
        shutil.rmtree(run, ignore_errors=True)


@pytest.mark.trials(full=40, sample=1)
def test_wild_values_of_students(trials, encoded, tmp_path):
    """A value in a student's description changed, its hash made to fit, for `sample`: refused, or used."""
    config, weights, file = load_file(encoded / "config.toml"), read_tensors(assets.STUDENT), tmp_path / "s.safetensors"
    described = StudentDescription.of(config).to_json()
    for trial in trials:
        file.write_bytes(serialise(weights, changed(described, trials.random)))
        ended = ends(
            "sample", "a red circle", "--student", file, "--steps", 1, "--seed", 1, "--out", tmp_path / "a.png"
        )
        assert ended.is_clean(0, 2, 3), (trial, ended)
        trials.count("used" if ended.code == 0 else "refused")


ODD = {
    "repeated": lambda: torch.zeros(1).expand(10**6, 10**6),
    "sparse": lambda: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**9, 10**9)),
    "sparse rows": lambda: torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 10**9)),
    "complex": lambda: torch.zeros(128, 8, 2, 2, dtype=torch.complex64),
    "whole numbers": lambda: torch.zeros(128, 8, 2, 2, dtype=torch.int32),
    "without values": lambda: torch.empty(128, 8, 2, 2, device="meta"),
    "nothing": lambda: torch.zeros(0, 10**12),
    "four bits": lambda: torch.zeros(128, 8, 2, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.trials(full=2 * len(ODD), sample=2)
def test_odd_tensors_of_teachers(trials, encoded, tmp_path):
    """Tensors in a teacher's `.pt` that are sparse, repeated, complex, empty, without values: refused at no cost."""
    weights, file = read_tensors(assets.TEACHER), tmp_path / "teacher.pt"
    for trial in trials:
        odd = list(ODD)[trial % len(ODD)]
        name = "x_embedder.proj.weight" if trial < len(ODD) else "surplus"
        torch.save({**weights, name: ODD[odd]()}, file)
        ended = ends("distill", "--run", encoded, *settings([f"model.teacher='{file}'"]))
        assert ended.is_clean(2, 3) and str(file) in ended.errors, (odd, ended)
        trials.count("refused")
