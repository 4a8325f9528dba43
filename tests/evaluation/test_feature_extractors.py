"""Extractors are identified once in a process, and again when their weights are replaced."""

import os
from dataclasses import replace

from safetensors.torch import load_file, save_file

from lcm_distill import assets
from lcm_distill.config import load_preset
from lcm_distill.evaluation.feature_extractors import find_extractor, open_extractor
from lcm_distill.metrics import registry


def test_an_extractor_is_loaded_once_to_identify_it(tmp_path, monkeypatch):
    shapes, loads = registry.PROTOCOLS["shapes"], list[object]()

    def load(weights, device):
        loads.append(weights)
        return shapes.load(weights, device)

    for name in ("one", "other"):
        monkeypatch.setitem(registry.PROTOCOLS, name, replace(shapes, name=name, load=load))
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(assets.FEATURES.read_bytes())
    files = {name: str(weights) for name in ("one", "other")}
    settings = load_preset("shapes", [f"evaluate.weights={files}".replace(":", " =")]).evaluate
    infos = [find_extractor(settings, name) for name in ("one", "other", "one", "other")]
    assert len(loads) == 2 and infos[0] == infos[2] and infos[1] == infos[3]
    assert infos[0].sha256 == open_extractor(settings, "shapes", "cpu").extractor.sha256
    os.utime(weights, ns=(0, 0))
    assert find_extractor(settings, "one") == infos[0] and len(loads) == 3


def test_replaced_weights_are_loaded_where_they_were_the_last_that_were_opened(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(assets.FEATURES.read_bytes())
    settings = load_preset("shapes", [f"evaluate.weights={{shapes = '{weights}'}}"]).evaluate
    before = find_extractor(settings, "shapes")
    tensors = {name: tensor * 2 for name, tensor in load_file(weights).items()}
    save_file(tensors, tmp_path / "other")
    (tmp_path / "other").replace(weights)
    after = find_extractor(settings, "shapes")
    assert after.sha256 != before.sha256
    assert open_extractor(settings, "shapes", "cpu").extractor.sha256 == after.sha256
