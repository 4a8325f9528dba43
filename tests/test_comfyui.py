"""ComfyUI's nodes, against a small double of its API."""

import asyncio
import importlib.util
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from lcm_distill.api import open_model

NODES = Path(__file__).parents[1] / "integrations" / "comfyui" / "__init__.py"
CAPTIONS = ["a large red circle in the centre on a navy background", "a small green star on a white background"]


@dataclass
class Socket:
    """An input with its id, or an output without."""

    id: str = ""
    default: Any = None
    options: list[str] = field(default_factory=list)
    min: float | None = None
    max: float | None = None
    step: float | None = None
    multiline: bool = False
    control_after_generate: bool = False
    display_name: str = ""


@dataclass
class Schema:
    """What a node says of itself."""

    node_id: str
    display_name: str
    category: str
    description: str
    inputs: list[Socket]
    outputs: list[Socket]


class NodeOutput:
    """Results, in the order of a node's outputs."""

    def __init__(self, *results: Any) -> None:
        self.results = results


def kind() -> SimpleNamespace:
    """A type of input and output."""
    return SimpleNamespace(Input=Socket, Output=Socket)


@pytest.fixture
def nodes(monkeypatch) -> dict[str, Any]:
    """The nodes that ComfyUI would find, by id."""
    kinds = {name: kind() for name in ("String", "Combo", "Int", "Float", "Image")}
    io = SimpleNamespace(ComfyNode=object, Schema=Schema, NodeOutput=NodeOutput, Custom=lambda name: kind(), **kinds)
    latest, management = ModuleType("comfy_api.latest"), ModuleType("comfy.model_management")
    vars(latest).update(io=io, ComfyExtension=object)
    vars(management).update(get_torch_device=lambda: torch.device("cpu"))
    for module in (ModuleType("comfy_api"), latest, ModuleType("comfy"), management):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location("lcm_distill_nodes", NODES)
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    extension = asyncio.run(package.comfy_entrypoint())
    return {node.define_schema().node_id: node for node in asyncio.run(extension.get_node_list())}


def test_three_nodes_describe_what_they_take(nodes):
    assert list(nodes) == ["LcmDistillLoadModel", "LcmDistillEncodeCaptions", "LcmDistillSampleImages"]
    for node in nodes.values():
        schema = node.define_schema()
        assert [socket.id for socket in schema.inputs] == list(inspect.signature(node.execute).parameters)
        assert schema.category == "lcm-distill" and len(schema.outputs) == 1


def test_a_student_samples_as_the_package_does(nodes):
    (model,) = nodes["LcmDistillLoadModel"].execute("shapes", "student", "float32").results
    (captions,) = (
        nodes["LcmDistillEncodeCaptions"].execute(model, "\n".join([CAPTIONS[0], " ", CAPTIONS[1] + " "])).results
    )
    (images,) = nodes["LcmDistillSampleImages"].execute(model, captions, 2, 2.5, 7).results
    expected = open_model("shapes").generate(CAPTIONS, 2, 2.5, seed=7)
    assert images.shape == (2, 64, 64, 3) and torch.equal(images, expected.permute(0, 2, 3, 1))


def test_a_teacher_in_bfloat16(nodes):
    (model,) = nodes["LcmDistillLoadModel"].execute("shapes", "teacher", "bfloat16").results
    (captions,) = nodes["LcmDistillEncodeCaptions"].execute(model, CAPTIONS[0]).results
    (images,) = nodes["LcmDistillSampleImages"].execute(model, captions, 2, 1.0, 0).results
    assert model.dtype == torch.bfloat16 and images.shape == (1, 64, 64, 3) and images.isfinite().all()


def test_no_caption_is_refused_in_words(nodes):
    (model,) = nodes["LcmDistillLoadModel"].execute("shapes", "student", "float32").results
    with pytest.raises(Exception, match="there is no prompt"):
        nodes["LcmDistillEncodeCaptions"].execute(model, " \n ")
