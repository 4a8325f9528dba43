"""CLIP and DINOv2 as extractors, on small models of the real kinds in their real formats."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from lcm_distill.core.errors import UserError
from lcm_distill.core.hashing import file_sha256
from lcm_distill.metrics.clip_extractor import ClipExtractor, find_clip
from lcm_distill.metrics.dinov2_extractor import Dinov2Extractor, resized_positions
from lcm_distill.metrics.interface import CaptionScorer

CPU = torch.device("cpu")
ARCHITECTURE = "small-ViT-B-32-quickgelu"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """ViT-B/32, narrower and shallower, and where its weights lie."""
    folder = tmp_path_factory.mktemp("clip")
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    assert config is not None
    config["embed_dim"] = 40
    config["text_cfg"] |= {"width": 64, "heads": 4, "layers": 2}
    config["vision_cfg"] |= {"width": 64, "layers": 2}
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{ARCHITECTURE}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(ARCHITECTURE, load_weights=False).eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model, folder


def images(count, size):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_clip_sees_images_and_captions_as_open_clip_does(clip):
    model, folder = clip
    extractor = ClipExtractor(ARCHITECTURE, find_clip(ARCHITECTURE, "openai", folder), CPU)
    scaled = images(3, 224).float() / 255
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    assert torch.allclose(extractor(images(3, 224)), model.encode_image((scaled - mean) / std), atol=1e-5)
    captions = ["a red ball", "two dogs " * 100]
    expected = model.encode_text(open_clip.get_tokenizer(ARCHITECTURE)(captions))
    assert torch.allclose(extractor.caption_features(captions), expected, atol=1e-5)
    seen = extractor(images(2, 224))
    cosines = torch.nn.functional.cosine_similarity(seen.double(), expected.double(), dim=1)
    assert torch.allclose(extractor.caption_scores(seen, captions), cosines, atol=1e-6)
    assert isinstance(extractor, CaptionScorer)
    assert extractor.width == 40
    assert extractor.sha256 == file_sha256(folder / "open_clip_model.safetensors")


def test_clip_weights_that_are_not_there_or_of_another_model(clip, tmp_path):
    with pytest.raises(UserError, match=r"holds no open_clip_model.safetensors or .*: put ViT-B-32 \(openai\) there"):
        find_clip("ViT-B-32", "openai", tmp_path)
    save_file({"logit_scale": torch.zeros(())}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other.safetensors holds no small-ViT-B-32-quickgelu in open_clip's layout"):
        ClipExtractor(ARCHITECTURE, tmp_path / "other.safetensors", CPU)


def small_dinov2(folder, image_size):
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=image_size)
    model = Dinov2Model(config).eval()
    model.save_pretrained(folder)
    return model


@torch.inference_mode()
def test_dinov2_gives_the_class_token(tmp_path):
    model = small_dinov2(tmp_path, 224)
    extractor = Dinov2Extractor(str(tmp_path), CPU)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    last = model((images(2, 224).float() / 255 - mean) / std).last_hidden_state
    assert torch.allclose(extractor(images(2, 224)), last[:, 0], atol=1e-5)
    assert (extractor.width, extractor.name) == (48, f"dinov2:{tmp_path.name}")


def test_dinov2_resizes_its_positions_once(tmp_path):
    small_dinov2(tmp_path, 518)
    extractor = Dinov2Extractor(str(tmp_path), CPU)
    assert extractor.model.embeddings.position_embeddings.shape == (1, 1 + 16 * 16, 48)
    assert extractor(images(1, 224)).shape == (1, 48)


def test_positions_are_read_where_the_published_code_reads_them():
    rows = torch.arange(37.0).view(1, 37, 1, 1).expand(1, 37, 37, 1)
    table = torch.cat([torch.full((1, 1, 1), -5.0), rows.flatten(1, 2)], dim=1)
    resized = resized_positions(table, 16)
    assert resized[0, 0] == -5
    at = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    # PyTorch's bicubic leaves a ramp by up to 0.06; without the offset the last of these would be 0.2 away.
    assert torch.allclose(resized[0, 1:, 0].view(16, 16)[2:14, 8], at[2:14], atol=0.06)


def test_dinov2_that_is_not_there_or_not_whole(tmp_path):
    with pytest.raises(UserError, match=r"DINOv2 .*absent' is neither here nor .*: put config.json and model.safetens"):
        Dinov2Extractor(str(tmp_path / "absent"), CPU)
    model = small_dinov2(tmp_path, 224)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("layernorm")}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model.safetensors is no whole DINOv2: it lacks layernorm.bias and 1 more"):
        Dinov2Extractor(str(tmp_path), CPU)
