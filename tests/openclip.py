"""A small CLIP of DFN5B's kind, in the layout of the hub."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

DFN5B = "ViT-H-14-378-quickgelu"


def small_config() -> dict:
    """DFN5B's configuration, narrower and shallower."""
    config = open_clip.get_model_config(DFN5B)
    assert config is not None
    config["embed_dim"] = 48
    config["text_cfg"] |= {"width": 64, "heads": 4, "layers": 3}
    config["vision_cfg"] |= {"image_size": 28, "width": 80, "layers": 1}
    return config


def small_clip() -> open_clip.CLIP:
    torch.manual_seed(0)
    config = small_config()
    return open_clip.CLIP(
        config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=config["quick_gelu"]
    ).eval()


def write_hub_folder(clip: open_clip.CLIP, folder: Path, weights: str) -> Path:
    """What `hf download` leaves."""
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": small_config(), "preprocess_cfg": {}}))
    tensors = {name: tensor.contiguous() for name, tensor in clip.state_dict().items()}
    (save_file if weights.endswith("safetensors") else torch.save)(tensors, folder / weights)
    return folder
