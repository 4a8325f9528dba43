"""Checkpoints as others save them load to the same weights, bit for bit, and what cannot be used is one line."""

import argparse
import collections
import datetime
import json
import os
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.models import build, load_checkpoint
from lcm_distill.models.checkpoint import read_tensors
from lcm_distill.models.checkpoint_identity import checkpoint_sha256, tensors_sha256

SEGMENTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def inside(segment, tensors):
    return {name.replace("blocks.0.", f"blocks.0.{segment}."): tensor for name, tensor in tensors.items()}


def other(tensors):
    return {name: tensor + 1 for name, tensor in tensors.items()}


def composer(tensors):
    """As composer saves a training: encoders beside the network, states of the optimiser, NumPy's of the generators."""
    moments = {f"dit.{name}": {"exp_avg": tensor + 2, "step": torch.tensor(5.0)} for name, tensor in tensors.items()}
    model = collections.OrderedDict(prefixed("dit.", tensors) | {"vae.decoder.conv_in.weight": torch.ones(3)})
    return {
        "state": {
            "model": model,
            "optimizers": {"DecoupledAdamW": {"state": moments, "param_groups": [{"lr": 1e-4}]}},
            "timestamp": {"total_wct": datetime.timedelta(hours=3), "batch": 2000},
            "run_name": "run",
        },
        "rng": [{"python": random.getstate(), "numpy": np.random.RandomState(0).get_state(), "loss": np.float64(0.5)}],
    }


COUNTS = collections.defaultdict(collections.OrderedDict, {"a": collections.defaultdict(int, {"b": 1})})

WRAPPERS = {
    "plain": lambda tensors: tensors,
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3, "hyper_parameters": {"lr": 1e-4}},
    "model": lambda tensors: {"model": tensors, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "module": lambda tensors: {"module": tensors, "global_steps": 2000},
    "args": lambda tensors: {"model": tensors, "args": argparse.Namespace(lr=1e-4)},
    "ema beside model": lambda tensors: {"model": other(tensors), "ema": tensors},
    "state_dict_ema": lambda tensors: {"state_dict": other(tensors), "state_dict_ema": tensors},
    "module.": lambda tensors: prefixed("module.", tensors),
    "_orig_mod.": lambda tensors: prefixed("_orig_mod.", tensors),
    "dit.": lambda tensors: {"state_dict": prefixed("dit.", tensors) | prefixed("vae.", {"conv": torch.ones(1)})},
    "module._orig_mod.": lambda tensors: {"model": prefixed("module._orig_mod.", tensors)},
    "composer": composer,
    "composer, compiled": lambda tensors: composer(prefixed("_orig_mod.", tensors)),
    "numpy": lambda tensors: {"state": {"model": {f"dit.{k}": v.numpy() for k, v in tensors.items()}}},
    "parameters": lambda tensors: {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()},
    "defaultdict": lambda tensors: {"model": collections.defaultdict(list, tensors), "counts": COUNTS},
    **{segment: lambda tensors, segment=segment: inside(segment, tensors) for segment in SEGMENTS},
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = build("MicroDiT_Nano_2", 8, 64, guidance_embedding=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def tensors(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same(path, tensors):
    read = read_tensors(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)
    assert checkpoint_sha256(path) == tensors_sha256(tensors)
    loaded = build("MicroDiT_Nano_2", 8, 64, guidance_embedding=True)
    load_checkpoint(loaded, path)
    assert tensors_sha256(loaded.state_dict()) == tensors_sha256(tensors)


@pytest.mark.parametrize("name", WRAPPERS)
def test_every_wrapper_holds_the_same_weights(tmp_path, tensors, name, recwarn):
    torch.save(WRAPPERS[name](tensors), tmp_path / "wrapped.pt")
    assert_same(tmp_path / "wrapped.pt", tensors)
    said = {str(warning.message) for warning in recwarn.list}
    assert all("the average under" in text for text in said) and bool(said) == ("ema" in name)
    recwarn.clear()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PT", ".CKPT", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickles_name_does_not_matter(tmp_path, tensors, suffix, zipped):
    path = tmp_path / f"weights{suffix}"
    torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=zipped)
    assert_same(path, tensors)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["y.safetensors", "y.SAFETENSORS"])
def test_a_pickle_may_be_called_safetensors(tmp_path, tensors, name, zipped):
    torch.save({"state_dict": tensors}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_same(tmp_path / name, tensors)


@pytest.mark.parametrize("suffix", [".safetensors", ".SAFETENSORS", ".SafeTensors", ".sft"])
def test_a_safetensors_files_name_does_not_matter(tmp_path, tensors, suffix):
    save_file(prefixed("model.", tensors) | {"vae.conv": torch.ones(1)}, tmp_path / f"weights{suffix}")
    assert_same(tmp_path / f"weights{suffix}", tensors)


def save_shards(folder, tensors, count=3):
    names = sorted(tensors)
    files = {name: f"model-{index % count + 1:05d}-of-{count:05d}.safetensors" for index, name in enumerate(names)}
    for file in sorted({*files.values()}):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


def test_shards_are_read_by_their_index(tmp_path, tensors):
    assert_same(save_shards(tmp_path, prefixed("transformer.", tensors)), tensors)


def test_an_index_may_begin_with_a_byte_order_mark(tmp_path, tensors):
    index = save_shards(tmp_path, tensors)
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    assert_same(index, tensors)


def test_a_changed_shard_has_another_identity(tmp_path, tensors):
    index = save_shards(tmp_path, tensors)
    before = checkpoint_sha256(index)
    tensors["final_layer.linear.bias"] = tensors["final_layer.linear.bias"] + 1
    save_shards(tmp_path, tensors)
    assert checkpoint_sha256(index) == tensors_sha256(tensors) != before


def test_a_missing_shard_and_a_false_index_are_one_line(tmp_path, tensors):
    index = save_shards(tmp_path, tensors)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors is missing, which .*index\.json names"):
        read_tensors(index)
    index = save_shards(tmp_path, tensors)
    save_file({"x": torch.ones(1)}, tmp_path / "model-00001-of-00003.safetensors")
    with pytest.raises(UserError, match=r"holds no .*, which .*index\.json says it does"):
        read_tensors(index)
    index.write_text('{"weight_map": {"x": "../model-00001-of-00003.safetensors"}}')
    with pytest.raises(DataError, match=r"its weight_map names \.\./model-00001.*, which is not in its folder"):
        read_tensors(index)
    index.write_text('{"weights": {}}')
    with pytest.raises(UserError, match="it is no index of shards"):
        read_tensors(index)


UNKNOWN = {
    "another network": ({"conv.weight": torch.ones(2), "conv.bias": torch.ones(2)}, "'conv.weight', 'conv.bias'"),
    "another wrapper": ({"epoch": 3, "net": {"w": torch.ones(2)}, "opt": {}}, "'epoch', 'net', 'opt'"),
    "no tensors": ({"epoch": 3, "loss": 0.5}, "'epoch', 'loss'"),
    "empty": ({}, "nothing"),
    "many": (
        {f"layer{index}": torch.ones(1) for index in range(900)},
        "'layer0', 'layer1', 'layer2', 'layer3', 'layer4', 'layer5' and 894 more",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_wrapper_is_named_in_one_short_line(tmp_path, name):
    content, said = UNKNOWN[name]
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(UserError) as caught:
        load_checkpoint(build("MicroDiT_Nano_2", 8, 64), tmp_path / "odd.pt")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'odd.pt'} holds no MicroDiT") and f"at the top it has {said}" in message
    assert "\n" not in message and len(message) < 400


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_two_tensors_of_one_name_are_refused(tmp_path, tensors, suffix):
    name, file = "final_layer.linear.bias", tmp_path / f"twice{suffix}"
    twice = {**tensors, f"_orig_mod.{name}": tensors[name] + 1}
    save_file(twice, file) if suffix == ".safetensors" else torch.save(twice, file)
    with pytest.raises(UserError, match=r"which are one tensor's name: leave one of them out") as caught:
        read_tensors(file)
    assert f"{name!r}" in str(caught.value) and f"{'_orig_mod.' + name!r}" in str(caught.value)


def test_a_tensor_in_two_shards_is_refused(tmp_path, tensors):
    index = save_shards(tmp_path, tensors)
    shard = tmp_path / "model-00001-of-00003.safetensors"
    (lent,) = sorted(tensors)[1:2]
    save_file({**{name: tensors[name] for name in sorted(tensors)[::3]}, lent: tensors[lent] + 1}, shard)
    with pytest.raises(UserError, match=rf"both hold {lent}: bring the shards of one checkpoint into one folder"):
        read_tensors(index)


def test_of_several_networks_none_is_guessed(tmp_path, tensors):
    torch.save({"generator": tensors, "teacher": other(tensors)}, tmp_path / "two.pt")
    with pytest.raises(UserError, match=r"holds several networks, under 'generator\.', 'teacher\.': save"):
        read_tensors(tmp_path / "two.pt")


def test_a_network_of_other_sizes_is_a_short_line(tmp_path):
    torch.save(build("MicroDiT_Nano_2", 8, 32).state_dict(), tmp_path / "narrow.pt")
    model = build("MicroDiT_Tiny_2", 8, 64)
    with pytest.raises(UserError, match=r"does not fit the model: .* the model wants .*; and \d+ more$") as caught:
        load_checkpoint(model, tmp_path / "narrow.pt")
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_weights_that_are_not_finite_are_named(tmp_path, tensors, value, form):
    tensors["blocks.1.norm1.weight"][7] = value
    path = tmp_path / f"weights.{form}"
    torch.save(tensors, path) if form == "pt" else save_file(tensors, path)
    with pytest.raises(DataError, match=r"not finite \(1 of .*blocks\.1\.norm1\.weight"):
        load_checkpoint(build("MicroDiT_Nano_2", 8, 64, guidance_embedding=True), path)


class Metric:
    """Something that a trainer saves beside its weights."""


def test_code_in_a_pickle_is_named_and_not_run(tmp_path, tensors):
    torch.save({"state_dict": tensors, "metric": Metric()}, tmp_path / "code.pt")
    with pytest.raises(UserError, match=r"a tests\.models\.test_weight_wrappers\.Metric, which is code and is not run"):
        read_tensors(tmp_path / "code.pt")


class Calls:
    """What a pickle does that runs a command."""

    def __reduce__(self):
        return os.system, ("true",)


def pickled(instructions):
    """A file in PyTorch's oldest form, whose first pickle is these instructions."""
    return b"\x80\x02" + instructions + b"."


REFUSED = {
    "a blocked module": (lambda path: torch.save({"x": Calls()}, path), "it holds a posix.system, which is code"),
    "a class": (
        lambda path: torch.save({"x": Metric()}, path),
        "it holds a tests.models.test_weight_wrappers.Metric",
    ),
    "no object": (lambda path: path.write_bytes(pickled(b"N}b")), "it holds NoneType in a form that is not read; save"),
    "an instruction": (
        lambda path: path.write_bytes(pickled(b"\x95" + bytes(8))),
        r"something else than tensors and plain values \(instruction 149\), which is not read",
    ),
    "TorchScript": (
        lambda path: torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path),
        "it is a TorchScript archive, which is code and is not run; save its state_dict alone",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:.*(TorchScript|torch.jit)")
def test_no_refused_pickle_comes_with_advice_to_run_it(tmp_path, name):
    write, said = REFUSED[name]
    write(tmp_path / "code.pt")
    with pytest.raises(DataError, match=said) as caught:
        read_tensors(tmp_path / "code.pt")
    message = str(caught.value)
    assert "weights_only" not in message and "Re-running" not in message and "\n" not in message and len(message) < 500


def test_a_folder_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(UserError, match=r"is a folder: give the path of a \.safetensors file, its \.index\.json"):
        read_tensors(tmp_path)


def test_reading_leaves_the_list_of_what_pickles_may_hold_as_it_was(tmp_path, tensors):
    before = sorted(map(repr, torch.serialization.get_safe_globals()))
    torch.save(tensors, tmp_path / "weights.pt")
    read_tensors(tmp_path / "weights.pt")
    assert sorted(map(repr, torch.serialization.get_safe_globals())) == before
