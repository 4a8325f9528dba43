"""What a student's file says of itself is bounded and checked before it is used."""

import json
import struct

import pytest
import torch
from safetensors.torch import save

from lcm_distill import assets
from lcm_distill.core.errors import UserError
from lcm_distill.models.checkpoint import METADATA, read_description, read_tensors
from lcm_distill.models.student_description import read_student

MODEL = read_description(assets.STUDENT)["model"]
SIZES = ("latent_size", "in_channels", "caption_channels")
FALLING = [float(sigma) for sigma in range(100_000, 0, -1)]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"sigmas": {"100000": FALLING}}, "sigmas"),
        ({"sigmas": {str(steps): [1.0] for steps in range(1, 1500)}}, "sigmas"),
        ({"sigmas": {"1": [-1.0]}}, "sigmas.1.0"),
        ({"sigmas": {"1": ["x"]}}, "sigmas.1.0"),
        ({"sigmas": {"1": [float("nan")]}}, "sigmas.1.0"),
        ({"sigmas": {"1": [float("inf")]}}, "sigmas.1.0"),
        ({"sigmas": {"2": [1.0, 2.0]}}, "the sigmas of 2 steps must be 2 that fall"),
        ({"sigmas": {"2": [1.0]}}, "the sigmas of 2 steps must be 2 that fall"),
        ({"sigmas": {"0": []}}, "sigmas.0"),
        ({"phases": FALLING}, "phases"),
        ({"guidance_range": [float("nan"), 1.0]}, "guidance_range.0"),
        ({"diffusion": {"sigma_max": float("inf")}}, "diffusion.sigma_max"),
        ({"model": "x" * 10**6}, "model"),
        ({"guidance_range": [1.0, 1e308]}, "guidance_range.1"),
        ({"diffusion": {"sigma_data": 1e308}}, "diffusion.sigma_data"),
        ({"diffusion": {"sigma_min": 1e-308}}, "diffusion.sigma_min"),
        *(({"model": MODEL | {name: size}}, f"model.{name}") for name in SIZES for size in (2**20, 2**62, 10**30)),
    ],
)
def test_a_description_that_cannot_be_is_one_line(tmp_path, changes, key):
    description = read_description(assets.STUDENT) | changes
    (tmp_path / "student.safetensors").write_bytes(save({"x": torch.zeros(1)}, {METADATA: json.dumps(description)}))
    with pytest.raises(UserError, match=r"student\.safetensors: ") as caught:
        read_student(tmp_path / "student.safetensors")
    line = str(caught.value)
    assert key in line and "\n" not in line and len(line) < 500


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "{", '{"role": "student"', "\udcff"])
def test_a_description_that_is_no_object_is_one_line(tmp_path, text):
    header = json.dumps({"__metadata__": {METADATA: text}}).encode()
    (tmp_path / "student.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UserError, match=r"student\.safetensors cannot be read") as caught:
        read_description(tmp_path / "student.safetensors")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("size", [90_000_000, 2**63, 2**64 - 1])
def test_a_header_without_end_is_not_read(tmp_path, size):
    path = tmp_path / "student.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", size) + b"{")
        file.truncate(min(size + 8, 90_000_008))  # a sparse file
    for read in (read_description, read_tensors):
        with pytest.raises(UserError, match="its header has"):
            read(path)


@pytest.mark.parametrize("loaded", [[1], {"a": {"b": torch.zeros(1)}}, {1: torch.zeros(1)}, torch.zeros(1), "text"])
def test_a_pickle_without_tensors_by_name_is_refused(tmp_path, loaded):
    torch.save(loaded, tmp_path / "weights.pt")
    with pytest.raises(
        UserError, match=r"weights.pt (cannot be read \(it holds a \w+, not tensors by name\)|holds no MicroDiT)"
    ):
        read_tensors(tmp_path / "weights.pt")
