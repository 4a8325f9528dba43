"""A file that is made out of modules works alone, and is the package's code."""

import ast
import sys
from typing import Any

import pytest
import torch

from lcm_distill.models import VARIANTS, build, build_empty
from lcm_distill.publishing import standalone as maker
from lcm_distill.publishing.diffusers_folder import REMOTE_CODE
from lcm_distill.publishing.standalone import standalone
from tests.tensors import name_seeded, random_tensor

SIZES = {"latent_size": 8, "in_channels": 4, "caption_channels": 48, "guidance_embedding": True}


@pytest.fixture(scope="module")
def model_class() -> type:
    """The network's class, out of its file."""
    namespace: dict[str, Any] = {"__name__": "microdit"}
    exec(compile(standalone(f"{REMOTE_CODE}.microdit"), "microdit.py", "exec"), namespace)
    return namespace["MicroDiTModel"]


@pytest.mark.parametrize("name", ["microdit", "microdit_scheduler", "pipeline", "block"])
def test_a_file_says_what_it_is_and_imports_nothing_of_the_package(name):
    tree = ast.parse(standalone(f"{REMOTE_CODE}.{name}"))
    assert ast.get_docstring(tree)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert modules and not any(module.startswith("lcm_distill") for module in modules)


@pytest.mark.parametrize("arch", VARIANTS)
def test_the_network_has_the_published_weights(model_class, arch):
    with torch.device("meta"):
        alone = model_class(variant=vars(VARIANTS[arch]), **SIZES)
    own = build_empty(arch, **SIZES).state_dict()
    assert {name: tensor.shape for name, tensor in alone.state_dict().items()} == {
        name: tensor.shape for name, tensor in own.items()
    }


def test_the_network_is_the_packages(model_class):
    own = build("MicroDiT_Nano_2", **SIZES)
    with torch.no_grad():
        name_seeded(own)
    alone = model_class(variant=vars(VARIANTS["MicroDiT_Nano_2"]), **SIZES)
    alone.load_state_dict(own.state_dict())
    latents, captions = random_tensor((3, 4, 8, 8), 1), random_tensor((2, 5, 48), 2)
    kept = torch.tensor([[0, 3, 5, 9]] * 3)
    for inputs in ({}, {"guidance": torch.tensor([3.0])}, {"kept": kept}):  # the third image has the null caption
        with torch.no_grad():
            expected = own(latents, torch.tensor([0.3]), captions, **inputs)
            assert torch.equal(alone(latents.double(), torch.tensor([0.3]), captions, **inputs), expected)
            assert expected.std() > 0.01


def test_one_name_for_two_things_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "made"
    package.mkdir()
    for name, text in {
        "__init__": "", "one": "_k = 1\n\n\ndef f():\n    return _k\n", "two": "_k = 2\n\n\ndef g():\n    return _k\n",
        "first": '"""One."""\n\nfrom made.one import f\n\n\ndef h():\n    return f()\n',
        "both": '"""Both."""\n\nfrom made.one import f\nfrom made.two import g\n\n\ndef h():\n    return f() + g()\n',
    }.items():  # fmt: skip
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(maker, "PACKAGE", "made")
    namespace = {}
    exec(standalone("made.first"), namespace)
    assert namespace["h"]() == 1 and namespace["__doc__"] == "One.\n"
    with pytest.raises(ValueError, match="_k is defined in made"):
        standalone("made.both")
    sys.modules.pop("made", None)
