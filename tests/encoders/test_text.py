"""Text towers in the hub's own layout give what open_clip gives."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from lcm_distill.encoders.openclip import build_text_tower
from lcm_distill.encoders.text import load_text_encoder
from lcm_distill.errors import UserError

DFN5B = "ViT-H-14-378-quickgelu"
CAPTIONS = ["a red fox in the snow", "", "an extremely long caption " * 30]


def small_config() -> dict:
    """DFN5B's configuration, narrower and shallower."""
    config = open_clip.get_model_config(DFN5B)
    config["embed_dim"] = 48
    config["text_cfg"] |= {"width": 64, "heads": 4, "layers": 3}
    config["vision_cfg"] |= {"image_size": 28, "width": 80, "layers": 1}
    return config


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    config = small_config()
    return open_clip.CLIP(
        config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=config["quick_gelu"]
    ).eval()


@pytest.fixture(params=["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def hub_folder(request, clip, tmp_path):
    """What `hf download` leaves."""
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": small_config(), "preprocess_cfg": {}}))
    tensors = {name: tensor.contiguous() for name, tensor in clip.state_dict().items()}
    (save_file if request.param.endswith("safetensors") else torch.save)(tensors, tmp_path / request.param)
    return tmp_path


def test_last_hidden_states_equal_open_clips(clip, hub_folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the image tower was built")

    seen = []
    hook = clip.ln_final.register_forward_hook(lambda module, inputs, output: seen.append(output))
    tokens = open_clip.get_tokenizer(DFN5B)(CAPTIONS)
    with torch.inference_mode():
        clip.encode_text(tokens)
    hook.remove()
    monkeypatch.setattr("open_clip.model._build_vision_tower", refuse)
    encoded = load_text_encoder(f"openclip:local-dir:{hub_folder}").encode(CAPTIONS)
    assert encoded.shape == (3, 77, 64)
    assert (encoded - seen[0]).norm() / seen[0].norm() < 1e-6


def test_the_real_tower_has_354_million_parameters():
    with torch.device("meta"):
        tower = build_text_tower(DFN5B)
    assert sum(parameter.numel() for parameter in tower.parameters()) == 354_032_640


def test_weights_of_another_model_are_refused(clip, hub_folder):
    config = small_config()
    config["text_cfg"]["layers"] = 4
    (hub_folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UserError, match=r"Missing key.*resblocks\.3"):
        load_text_encoder(f"openclip:local-dir:{hub_folder}")


@pytest.mark.parametrize("name", ["openclip:local-dir:nowhere", "openclip:ViT-B-32", "clip:x"])
def test_what_is_not_there_is_one_line(name):
    with pytest.raises(UserError):
        load_text_encoder(name)
