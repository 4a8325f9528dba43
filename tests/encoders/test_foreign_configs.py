"""Configurations of encoders that somebody else wrote: sizes are bounded before anything is built or allocated."""

import json
import shutil

import pytest

from lcm_distill import assets
from lcm_distill.core.errors import UserError
from lcm_distill.encoders.images import load_image_encoder
from lcm_distill.encoders.text import load_text_encoder
from lcm_distill.encoders.vae import WEIGHTS
from tests.openclip import small_clip, small_config, write_hub_folder


@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers_per_block": 10**9}, "layers_per_block is 1000000000: it must be a whole number, 1 or more"),
        ({"layers_per_block": 10**30}, "layers_per_block is 1000"),
        ({"latent_channels": -1}, "latent_channels is -1"),
        ({"norm_num_groups": 0}, "norm_num_groups is 0"),
        ({"in_channels": 4}, "in_channels is 4"),
        ({"block_out_channels": [8] * 2_000}, "it must be a list of 1 to 10"),
        ({"block_out_channels": []}, "it must be a list of 1 to 10"),
        ({"block_out_channels": [10**6] * 4}, "block_out_channels is 1000000"),
        ({"block_out_channels": [16_384] * 4}, "parameters, more than 1,000,000,000"),
        ({"down_block_types": [[1]] * 4}, r"down_block_types has \[1\]: it must be one of DownEncoderBlock2D"),
        ({"act_fn": 3}, "act_fn is 3"),
        ({"use_quant_conv": 5}, "use_quant_conv is 5: it must be true or false"),
        ({"sample_size": []}, r"sample_size is \[\]"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "it has a quantization_config"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_a_vae_of_wild_sizes_is_one_line(tmp_path, weights, change, message):
    shutil.copy(assets.VAE / WEIGHTS, tmp_path)
    described = json.loads((assets.VAE / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | change))
    with pytest.raises(UserError, match=message) as refused:
        load_image_encoder(str(tmp_path), weights)
    assert "\n" not in str(refused.value)


def test_shapes_of_weights_are_compared_before_a_vae_is_allocated(tmp_path, monkeypatch):
    shutil.copy(assets.VAE / WEIGHTS, tmp_path)
    described = json.loads((assets.VAE / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"latent_channels": 512}))
    monkeypatch.setattr("lcm_distill.encoders.vae._open", lambda *_, **__: pytest.fail("it was allocated"))
    with pytest.raises(UserError, match=r"size mismatch for encoder\.conv_out\.weight"):
        load_image_encoder(str(tmp_path))


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"\xff", b" " * 2_000_000])
def test_what_is_no_configuration_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "open_clip_config.json").write_bytes(content)
    for load, name in ((load_image_encoder, str(tmp_path)), (load_text_encoder, f"openclip:local-dir:{tmp_path}")):
        with pytest.raises(UserError, match=r"cannot be loaded") as refused:
            load(name)
        assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def hub_clip(tmp_path_factory):
    return write_hub_folder(small_clip(), tmp_path_factory.mktemp("clip"), "open_clip_model.safetensors")


def describe(hub_clip, tmp_path, change: dict) -> str:
    """The name of a text encoder whose text tower is described in another way."""
    folder, config = shutil.copytree(hub_clip, tmp_path / "clip"), small_config()
    config["text_cfg"] |= change
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return f"openclip:local-dir:{folder}"


@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 10**9}, "layers is 1000000000"),
        ({"context_length": 10**6}, "context_length is 1000000"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ({"mlp_ratio": 1e300}, "mlp_ratio is 1e"),
        ({"width": 16_384, "heads": 16, "layers": 128}, "parameters, more than 4,000,000,000"),
        ({"heads": 3}, "cannot be loaded"),
        ({"no_such": 1}, "no_such"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_a_text_tower_of_wild_sizes_is_one_line(hub_clip, tmp_path, weights, change, message):
    with pytest.raises(UserError, match=message) as refused:
        load_text_encoder(describe(hub_clip, tmp_path, change), weights)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_of_a_larger_vocabulary_is_one_line(hub_clip, tmp_path):
    with pytest.raises(UserError, match=r"gives token 49407, and its configuration has vocab_size = 1000"):
        load_text_encoder(describe(hub_clip, tmp_path, {"vocab_size": 1_000}), "random")


def test_code_beside_a_tokenizer_is_not_run(hub_clip, tmp_path):
    """Even where the configuration of the model trusts it."""
    change = {"hf_tokenizer_name": "any", "tokenizer_kwargs": {"trust_remote_code": True}}
    name = describe(hub_clip, tmp_path, change)
    folder, marker = tmp_path / "clip", tmp_path / "ran"
    (folder / "attack.py").write_text(f"open({str(marker)!r}, 'w')\nclass Attack: pass\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["attack.Attack", None]}}))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_text_encoder(name)
    assert not marker.exists()
