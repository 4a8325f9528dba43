"""text2image-benchmark's path from image to distance, against what its own code gave for the same weights."""

import hashlib
from functools import partial

import pytest
import torch

from lcm_distill.core.errors import UserError
from lcm_distill.metrics import inception_extractor
from lcm_distill.metrics.frechet import Moments, frechet_distance
from lcm_distill.metrics.inception_extractor import INCEPTION_2015, InceptionExtractor, build_inception
from lcm_distill.metrics.preprocessing import square_bicubic
from lcm_distill.metrics.registry import open_protocol
from lcm_distill.metrics.weights import PublishedWeights

from .recorded import FACTS, FEATURES, inception_weights, recorded_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(inception_weights(), path)
    return path


@pytest.fixture(scope="module")
def prepared():
    return torch.stack([square_bicubic(recorded_image(i), 299) for i in range(32)])


@pytest.fixture(scope="module")
def features(weights, prepared):
    return InceptionExtractor(weights, CPU, 127.5)(prepared)


def test_layout_is_the_published_one():
    ours = {name: list(tensor.shape) for name, tensor in build_inception().state_dict().items()}
    assert ours == FACTS["inception_tensors"]


def test_pixels_are_the_recorded_ones(prepared):
    pixels = [tensor.permute(1, 2, 0).contiguous().numpy() for tensor in prepared]
    assert [hashlib.sha256(each.tobytes()).hexdigest() for each in pixels] == FACTS["pixels_sha256"]


def test_features_are_the_recorded_ones(features):
    recorded = torch.from_numpy(FEATURES["features"])
    assert features.shape == (32, 2048)
    assert torch.linalg.norm(features - recorded) / torch.linalg.norm(recorded) < 1e-4


def test_distance_is_the_recorded_one(features):
    first = features[:, :8]
    distance = frechet_distance(Moments.of(first[:16]), Moments.of(first[16:]))
    assert distance == pytest.approx(FACTS["frechet_first8_first16_vs_last16"], rel=1e-3)


def test_protocol_holds_its_weights_to_the_published_hash(weights, monkeypatch):
    with pytest.raises(UserError, match=r"random.pth is not pt_inception-2015-12-05-6726825d.pth as published"):
        open_protocol("t2i-benchmark", weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    monkeypatch.setattr(inception_extractor, "INCEPTION_2015", PublishedWeights(("random.pth",), sha256, "here"))
    assert open_protocol("gigagan", weights.parent).extractor.sha256 == sha256


def test_missing_weights_say_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", partial(str, tmp_path))
    with pytest.raises(UserError, match=rf"pt_inception-2015-12-05-6726825d.pth .* put it into {tmp_path}/checkpoints"):
        INCEPTION_2015.find(None)
    with pytest.raises(UserError, match=f"put it into {tmp_path}, or say"):
        INCEPTION_2015.find(tmp_path / "elsewhere.pth")


def test_other_weights_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(UserError, match=r"other.pth holds no Inception in pytorch-fid's layout"):
        InceptionExtractor(path, CPU, 127.5)
    path.write_bytes(b"not a file of PyTorch")
    with pytest.raises(UserError, match=r"other.pth holds no Inception"):
        InceptionExtractor(path, CPU, 127.5)
