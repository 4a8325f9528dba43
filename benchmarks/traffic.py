"""Bytes that the elementwise kernels of a training step move, counted without a GPU.

make bench-traffic      # prints last: traffic_ratio=... traffic_ratio_kept=...

One step of distillation at XL/2 and 512 px, 64 samples, on fake tensors: micro-batches of 32 with blocks recomputed,
and of 16 with activations kept. Counted are the inputs and outputs of every kernel that is no product, convolution or
attention: on a GPU these take as long as their bytes. Ratios are to what the step moved as plain PyTorch under
autocast, before kernels were fused; that count is by the same mode, on commit eea8f9b.
"""

import argparse
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcm_distill.config import Config, load_preset
from lcm_distill.diffusion.ema import update_average
from lcm_distill.kernels.operators import assume_fused
from lcm_distill.training.budget import meta_network
from lcm_distill.training.fake_step import FakeStep
from lcm_distill.training.objective_registry import build_objective
from lcm_distill.training.student_networks import build_networks

UNFUSED = {"recomputed": 3320.6e9, "kept": 2936.9e9}
"""Bytes on commit eea8f9b, LayerNorm being float32 as under CUDA's autocast."""
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "convolution", "_scaled_dot_product")
BATCH, CAPTION_TOKENS = 64, 77


class Traffic(TorchDispatchMode):
    """Bytes by the name of the operator that moves them. Views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count its bytes."""
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if not name.startswith((*PRODUCTS, "empty", "new_empty")):
            self.moved[name] += _moved(func, name, args, kwargs or {}, out)
        return out


def _moved(func: Any, name: str, args: Any, kwargs: Any, out: Any) -> int:
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    written = [
        tensor
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
        for tensor in _tensors(given.get(argument.name))
    ]
    read = _tensors(given)
    storages = {tensor.untyped_storage()._cdata for tensor in read}
    made = [tensor for tensor in _tensors(out) if tensor.untyped_storage()._cdata not in storages]
    if not written and not made:
        return 0  # a view
    if name in ("copy_", "_foreach_copy_"):  # what is copied to is not read
        read = [tensor for tensor in read if all(tensor is not target for target in written)]
    places = {(t.untyped_storage()._cdata, t.storage_offset(), t.shape): _size(t) for t in read}
    return sum(places.values()) + sum(map(_size, written)) + sum(map(_size, made))


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _size(tensor: Tensor) -> int:
    """Bytes that lie in memory: expanded dimensions count once."""
    count = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= length if stride else 1
    return count


def whole_step(step: FakeStep, optimiser: torch.optim.Optimizer, passes: int) -> None:
    """All passes and the update."""
    networks = step.networks
    optimiser.zero_grad()
    for _ in range(passes):
        step.passes()
    torch.nn.utils.clip_grad_norm_(list(networks.student.parameters()), 1.0)
    optimiser.step()
    assert networks.target is not None
    for average in (networks.target, networks.average):
        update_average(average, networks.student, 0.9)
    step.engine.refresh_copies()


def count(config: Config, micro_batch: int) -> Counter[str]:
    """Bytes of the second step, which makes no moments of its own."""
    objective = build_objective(config.distill, config.diffusion)
    weights = meta_network(config.model, guidance_embedding=False).state_dict()
    networks = build_networks(config.model, config.distill, config.distill_seed, objective, weights)
    # AdamW's fused update does not run on the meta device; fake tensors claim to be on another.
    with FakeTensorMode(allow_non_fake_inputs=True), assume_fused():
        step = FakeStep(config, objective, networks, CAPTION_TOKENS, micro_batch, torch.device("cpu"))
        optimiser = torch.optim.AdamW(step.networks.student.parameters(), lr=1e-5, fused=True)
        for parameter in step.networks.student.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimiser.step()
        with Traffic() as traffic:
            whole_step(step, optimiser, BATCH // micro_batch)
    return traffic.moved


def main() -> None:
    """Count both ways and print."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--top", type=int, default=12, help="operators to name")
    options = arguments.parse_args()
    ratios = {}
    for name, recompute, micro_batch in (("recomputed", "true", 32), ("kept", "false", 16)):
        # The objective, as before.
        alone = ["distill.matching.weight=0", "distill.adversarial.weight=0", "distill.solver=euler"]
        config = load_preset("microdit_xl_512", [f"engine.activation_checkpointing={recompute}", *alone])
        moved = count(config, micro_batch)
        total = sum(moved.values())
        ratios[name] = total / UNFUSED[name]
        print(f"activations {name}: {total / 1e9:.0f} GB, before {UNFUSED[name] / 1e9:.0f} GB")
        for operator, size in moved.most_common(options.top):
            print(f"  {operator:32s}{size / 1e9:8.1f} GB")
    print(f"traffic_ratio={ratios['recomputed']:.3f} traffic_ratio_kept={ratios['kept']:.3f}")


if __name__ == "__main__":
    main()
