"""Weights of every protocol that are cut off, empty or something else: one line that names the file and the key."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from lcm_distill import assets
from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.evaluation.feature_extractors import find_extractor
from lcm_distill.metrics.registry import PROTOCOLS

DAMAGES = {
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "something else": lambda content: b"these are no weights\n" * 100,
}


def weights_of(protocol: str, folder: Path) -> tuple[Path, Path]:
    """A file of weights in the form that a protocol takes, and what `evaluate.weights` names to use it."""
    if protocol == "shapes":
        file = folder / "features.safetensors"
        file.write_bytes(assets.FEATURES.read_bytes())
    elif protocol == "fd-dinov2":
        Dinov2Model(Dinov2Config(hidden_size=48, num_hidden_layers=2, num_attention_heads=4)).save_pretrained(folder)
        return folder / "model.safetensors", folder
    elif protocol == "cmmd" or protocol.startswith("clip"):
        file = folder / "open_clip_model.safetensors"
        save_file({"logit_scale": torch.zeros(1000)}, file)
    else:
        file = folder / "inception.pth"
        torch.save({"fc.weight": torch.zeros(1000)}, file)
    return file, file


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_one_line(tmp_path, protocol, damage):
    file, named = weights_of(protocol, tmp_path)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    settings = load_preset("shapes", [f"evaluate.weights.{protocol}='{named}'"]).evaluate
    with pytest.raises(UserError) as caught:
        find_extractor(settings, protocol)
    told = str(caught.value)
    assert len(told.splitlines()) == 1 and str(file) in told
    assert f"set evaluate.weights.{protocol} to the file" in told
