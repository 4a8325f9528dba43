"""Folders that hold a model in another format than a run are told what opens them."""

import re
import shutil

import pytest

from lcm_distill import assets
from lcm_distill.api import LatentConsistencyModel, open_model
from lcm_distill.core.errors import UserError


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        ([], " is not a run folder: it has no config.toml; give a run folder, a student's file, or `shapes`"),
        (["model_index.json"], " is a folder for diffusers: DiffusionPipeline.from_pretrained opens it"),
        (["sampling.json"], " is a folder for ONNX Runtime: examples/draw_with_onnx.py generates images from it"),
    ],
)
def test_a_folder_of_another_format_is_told_what_opens_it(tmp_path, holds, said):
    for name in holds:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"^{re.escape(f'{tmp_path}{said}')}"):
        open_model(tmp_path)


def test_the_weights_of_a_folder_for_diffusers_are_named_and_open(tmp_path):
    weights = tmp_path / "transformer/diffusion_pytorch_model.safetensors"
    weights.parent.mkdir()
    shutil.copy(assets.STUDENT, weights)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match=f"from_pretrained opens it; here, give {re.escape(str(weights))}$"):
        open_model(tmp_path)
    assert isinstance(open_model(weights), LatentConsistencyModel)


def test_an_empty_name_is_not_the_working_directory():
    with pytest.raises(UserError, match=r"^no model is named: give a run folder, a student's file, or `shapes`"):
        open_model("")
