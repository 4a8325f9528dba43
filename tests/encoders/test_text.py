"""Text towers in the hub's own layout give what open_clip gives."""

import json

import open_clip
import pytest
import torch

from lcm_distill.core.errors import UserError
from lcm_distill.encoders.openclip import WEIGHTS, build_text_tower, random_text_tower
from lcm_distill.encoders.text import load_text_encoder, save_text_encoder
from tests.openclip import DFN5B, small_clip, small_config, write_hub_folder

CAPTIONS = ["a red fox in the snow", "", "an extremely long caption " * 30]


@pytest.fixture(scope="module")
def clip():
    return small_clip()


@pytest.fixture(params=WEIGHTS)
def hub_folder(request, clip, tmp_path):
    return write_hub_folder(clip, tmp_path, request.param)


def hidden_states_of(clip) -> torch.Tensor:
    seen = []
    hook = clip.ln_final.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.inference_mode():
        clip.encode_text(open_clip.get_tokenizer(DFN5B)(CAPTIONS))
    hook.remove()
    return seen[0]


def test_last_hidden_states_equal_open_clips(clip, hub_folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the image tower was built")

    expected = hidden_states_of(clip)
    monkeypatch.setattr("open_clip.model._build_vision_tower", refuse)
    encoded = load_text_encoder(f"openclip:local-dir:{hub_folder}").encode(CAPTIONS)
    assert encoded.shape == (3, 77, 64)
    assert (encoded - expected).norm() / expected.norm() < 1e-6


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 1e-2), ("float16", 2e-3)])
def test_products_are_in_low_precision_and_what_they_add_to_is_not(clip, tmp_path, dtype, tolerance):
    encoder = load_text_encoder(f"openclip:local-dir:{write_hub_folder(clip, tmp_path, WEIGHTS[0])}", dtype=dtype)
    types = {name: parameter.dtype for name, parameter in encoder.tower.named_parameters()}
    low, exact = encoder.encode(CAPTIONS), hidden_states_of(clip)
    blocks = {name for name in types if name.startswith("transformer.") and ".ln_" not in name}
    assert {types[name] for name in blocks} == {getattr(torch, dtype)}
    assert {kind for name, kind in types.items() if name not in blocks} == {torch.float32}
    assert low.dtype == torch.float32
    assert 1e-5 < (low - exact).norm() / exact.norm() < tolerance


def test_low_precision_is_that_of_autocast(clip, tmp_path):
    """Which casts float32 weights at every product; ours are held in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        expected = hidden_states_of(clip)
    ours = load_text_encoder(f"openclip:local-dir:{write_hub_folder(clip, tmp_path, WEIGHTS[0])}", dtype="bfloat16")
    assert torch.equal(ours.encode(CAPTIONS), expected)


def test_the_real_tower_has_354_million_parameters():
    with torch.device("meta"):
        towers = build_text_tower(DFN5B), random_text_tower("hf-hub:apple/DFN5B-CLIP-ViT-H-14-378")
    for tower in towers:
        assert sum(parameter.numel() for parameter in tower.parameters()) == 354_032_640


def test_random_weights_need_no_download_and_are_the_same_every_time():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    encoded = [load_text_encoder("openclip:ViT-B-32", weights="random").encode(CAPTIONS) for _ in range(2)]
    assert torch.equal(torch.rand(4), expected)  # the global generator went on as if nothing had happened
    assert encoded[0].shape == (3, 77, 512) and torch.equal(*encoded)
    assert (encoded[0][0] - encoded[0][1]).std() > 0.1


def test_random_weights_of_local_models_take_their_configuration(clip, hub_folder):
    name = f"openclip:local-dir:{hub_folder}"
    untrained = load_text_encoder(name, weights="random").encode(CAPTIONS)
    assert untrained.shape == (3, 77, 64)
    assert not torch.allclose(untrained, load_text_encoder(name).encode(CAPTIONS), atol=0.1)


def test_random_shapes_are_not_the_trained_ones():
    trained, untrained = (load_text_encoder("shapes", weights).encode(CAPTIONS) for weights in ("pretrained", "random"))
    assert trained.shape == untrained.shape and not torch.allclose(trained, untrained, atol=0.1)


def test_the_tower_alone_equals_that_of_the_whole_model(clip, hub_folder, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    save_text_encoder(f"openclip:local-dir:{hub_folder}", alone)
    assert sorted(path.name for path in alone.iterdir()) == ["open_clip_config.json", WEIGHTS[0]]
    whole, part = (load_text_encoder(f"openclip:local-dir:{folder}") for folder in (hub_folder, alone))
    assert all(torch.equal(part.tower.state_dict()[name], tensor) for name, tensor in whole.tower.state_dict().items())
    assert torch.equal(whole.encode(CAPTIONS), part.encode(CAPTIONS))
    size = sum(tensor.nbytes for tensor in whole.tower.state_dict().values())
    assert 0 < (alone / WEIGHTS[0]).stat().st_size - size < 10_000


@pytest.mark.parametrize(
    ("layers", "message"), [(4, r"Missing key.*resblocks\.3"), (2, r"Unexpected key.*resblocks\.2")]
)
def test_weights_of_another_model_are_refused(hub_folder, layers, message):
    config = small_config()
    config["text_cfg"]["layers"] = layers
    (hub_folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UserError, match=message):
        load_text_encoder(f"openclip:local-dir:{hub_folder}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openclip:local-dir:nowhere", "hf download apple/DFN5B-CLIP-ViT-H-14-378 --include 'open_clip*'"),
        ("openclip:ViT-B-32", "write hf-hub:ORGANISATION/NAME or local-dir:FOLDER"),
        ("openclip:roberta-ViT-B-32", "its text tower is not one of open_clip's own"),
        ("clip:x", "encoders.text = 'clip:x': write `shapes` or `openclip:NAME`"),
    ],
)
def test_what_is_not_there_is_one_line(name, message):
    with pytest.raises(UserError) as caught:
        load_text_encoder(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)
