"""Low-rank adapters of a student (LoRA, arXiv 2106.09685), which are merged into its weights for publication."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from torch import Tensor, nn

from lcm_distill.config import LoraSettings
from lcm_distill.models import MicroDiT
from lcm_distill.models.layers import ScalarEmbedder
from lcm_distill.models.precision import Linear
from lcm_distill.pipeline.atomic_writes import commit_folder

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTED = r"(patch_mixer|blocks)\.\d+\.(attn|cross_attn|mlp)\.(qkv|proj|q_linear|kv_linear|w1|w2|w3)"
"""The adapted linear layers: attention and dense feed-forwards. Experts' weights stay the teacher's."""
GUIDANCE = "cfg_embedder"
"""The guidance embedder, which is trained in full: a teacher has none."""
PREFIX = "base_model.model."
"""Prefix of the names in peft's adapter files."""

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def adapt(student: MicroDiT, settings: LoraSettings) -> None:
    """Add adapters to a student, in place, that start as zero.

    Afterwards only the adapters and the guidance embedder require gradients.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    inject_adapter_in_model(_peft_config(settings), student)
    for module in student.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False  # our layers cast their inputs
            for adapters in (module.lora_A, module.lora_B):
                _replace_linear(adapters)
    cast(ScalarEmbedder, student.cfg_embedder).requires_grad_(True)


def copy_sharing_frozen(network: AnyModule) -> AnyModule:
    """A copy of a network that copies trained parameters and shares the frozen ones, until it is sharded."""
    frozen = {id(parameter): parameter for parameter in network.parameters() if not parameter.requires_grad}
    return copy.deepcopy(network, cast(dict[int, object], frozen))


def merge(weights: Mapping[str, Tensor], settings: LoraSettings) -> dict[str, Tensor]:
    """The weights of an adapted student in the layout of a plain one, W + alpha / rank * B A where there is an adapter.

    Args:
        weights: the adapted student's state dict, which is not changed.
    """
    merged = {name.replace(".base_layer", ""): tensor for name, tensor in weights.items() if ".lora_" not in name}
    for name, down in weights.items():
        if ".lora_A." in name:
            layer = name.partition(".lora_A.")[0]
            up = weights[name.replace(".lora_A.", ".lora_B.")]
            change = settings.alpha / settings.rank * (up @ down)
            merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + change.to(merged[f"{layer}.weight"].dtype)
    return merged


def export_adapter(folder: Path, weights: Mapping[str, Tensor], settings: LoraSettings) -> None:
    """Commit adapters and guidance embedder as a folder in peft's layout.

    `peft.PeftModel.from_pretrained(student, folder)` adds them to a student that starts from the same teacher.

    Args:
        weights: the adapted student's state dict.
    """
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    tensors = {
        PREFIX + name.replace(".default.", "."): tensor.cpu().contiguous()
        for name, tensor in weights.items()
        if ".lora_" in name or name.startswith(f"{GUIDANCE}.")
    }

    def write(temporary: Path) -> None:
        save_file(tensors, temporary / "adapter_model.safetensors")
        _peft_config(settings, modules_to_save=[GUIDANCE]).save_pretrained(str(temporary))  # pyright: ignore[reportUnknownMemberType]

    commit_folder(folder, write)


def _replace_linear(adapters: nn.ModuleDict) -> None:
    """Replace adapters by layers with the same weights that can compute in a lower precision."""
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
