"""Low-rank adapters on a student (LoRA, arXiv 2106.09685): small to train, merged when it is published."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from torch import Tensor, nn

from lcm_distill.config import LoraSettings
from lcm_distill.models import MicroDiT
from lcm_distill.models.layers import ScalarEmbedder
from lcm_distill.models.precision import Linear
from lcm_distill.pipeline.atomic import commit_folder

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTED = r"(patch_mixer|blocks)\.\d+\.(attn|cross_attn|mlp)\.(qkv|proj|q_linear|kv_linear|w1|w2|w3)"
"""Linear layers of attention and dense feed-forwards. Experts' weights are no layers and stay the teacher's."""
GUIDANCE = "cfg_embedder"
"""Trained whole: a teacher has none."""
PREFIX = "base_model.model."
"""What peft puts before the names in an adapter's file."""

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def adapt(student: MicroDiT, settings: LoraSettings) -> None:
    """Give a student adapters that change nothing at first; they and the guidance embedder alone are trained."""
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    inject_adapter_in_model(_peft_config(settings), student)
    for module in student.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False  # our layers cast what they are given
            for adapters in (module.lora_A, module.lora_B):
                _own_linear(adapters)
    cast(ScalarEmbedder, student.cfg_embedder).requires_grad_(True)


def copy_sharing_frozen(network: AnyModule) -> AnyModule:
    """A copy with weights of its own where the network is trained, and the same ones elsewhere until it is sharded."""
    frozen = {id(parameter): parameter for parameter in network.parameters() if not parameter.requires_grad}
    return copy.deepcopy(network, cast(dict[int, object], frozen))


def merge(weights: Mapping[str, Tensor], settings: LoraSettings) -> dict[str, Tensor]:
    """An adapted student's weights as those of a plain one: W + alpha / rank B A where there is an adapter."""
    merged = {name.replace(".base_layer", ""): tensor for name, tensor in weights.items() if ".lora_" not in name}
    for name, down in weights.items():
        if ".lora_A." in name:
            layer = name.partition(".lora_A.")[0]
            up = weights[name.replace(".lora_A.", ".lora_B.")]
            change = settings.alpha / settings.rank * (up @ down)
            merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + change.to(merged[f"{layer}.weight"].dtype)
    return merged


def export_adapter(folder: Path, weights: Mapping[str, Tensor], settings: LoraSettings) -> None:
    """Commit adapters and guidance embedder in peft's layout.

    `peft.PeftModel.from_pretrained(student, folder)` puts them on a student that starts from the same teacher.
    """
    from safetensors.torch import save_file

    tensors = {
        PREFIX + name.replace(".default.", "."): tensor.cpu().contiguous()
        for name, tensor in weights.items()
        if ".lora_" in name or name.startswith(f"{GUIDANCE}.")
    }

    def write(temporary: Path) -> None:
        save_file(tensors, temporary / "adapter_model.safetensors")
        _peft_config(settings, modules_to_save=[GUIDANCE]).save_pretrained(str(temporary))

    commit_folder(folder, write)


def _own_linear(adapters: nn.ModuleDict) -> None:
    """The same adapters as layers whose products may be in lower precision than their weights."""
    for name, adapter in adapters.items():
        assert isinstance(adapter, nn.Linear)
        layer = Linear(adapter.in_features, adapter.out_features, bias=False, device="meta")
        layer.weight = adapter.weight
        adapters[name] = layer


def _peft_config(settings: LoraSettings, modules_to_save: list[str] | None = None) -> "LoraConfig":
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  (any number serves)
        target_modules=ADAPTED,
        modules_to_save=modules_to_save,
    )
