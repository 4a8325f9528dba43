"""A text encoder in the form of transformers gives what ours gives."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.encoders.text import load_text_encoder
from lcm_distill.publishing.clip_text_model import write_text_encoder, write_tokenizer
from lcm_distill.publishing.remote_code.sampling import encode_prompts
from tests.openclip import small_clip, write_hub_folder

CAPTIONS = [
    "a red fox in the SNOW,\n  at 12:30",
    "",
    "Beyoncé &amp; Jay-Z aren't 東京 ☃",
    "an extremely long caption " * 30,
    "look! a small red star!!",
]


def written(text: str, root) -> torch.Tensor:
    """Hidden states of `CAPTIONS` by an encoder that was written as a `CLIPTextModel`."""
    for name in ("tokenizer", "text_encoder"):
        (root / name).mkdir()
    write_tokenizer(root / "tokenizer")
    encoders = load_preset("shapes", [f"encoders.text={text}"]).encoders
    write_text_encoder(encoders, root / "text_encoder", root / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(root / "tokenizer")
    with torch.inference_mode():
        return encode_prompts(tokenizer, CLIPTextModel.from_pretrained(root / "text_encoder"), CAPTIONS)


def test_hidden_states_are_ours(tmp_path):
    (tmp_path / "clip").mkdir()
    folder = write_hub_folder(small_clip(), tmp_path / "clip", "open_clip_model.safetensors")
    for name in ("shapes", f"openclip:local-dir:{folder}"):
        root = tmp_path / name.partition(":")[0]
        root.mkdir()
        ours = load_text_encoder(name).encode(CAPTIONS)
        assert torch.allclose(written(name, root), ours, atol=1e-5) and ours.std() > 0.1


@pytest.mark.parametrize(
    ("change", "extra", "problem"),
    [
        ({"no_causal_mask": True}, {}, "its hidden states would be"),
        (
            {"ls_init_value": 0.1},
            {f"transformer.resblocks.{block}.ls_{half}.gamma": torch.ones(64) for block in range(3) for half in (1, 2)},
            "it has weights such as transformer",
        ),
    ],
)
def test_another_kind_of_network_is_refused(tmp_path, change, extra, problem):
    (tmp_path / "clip").mkdir()
    folder = write_hub_folder(small_clip(), tmp_path / "clip", "open_clip_model.safetensors")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= change
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = folder / "open_clip_model.safetensors"
    save_file({**load_file(weights), **extra}, weights)
    with pytest.raises(UserError, match=problem):
        written(f"openclip:local-dir:{folder}", tmp_path)
