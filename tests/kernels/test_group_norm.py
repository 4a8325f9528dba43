"""The fused group norm against PyTorch's, in Triton's interpreter, and through Triton's compiler for GPUs."""

import json
import os
import subprocess
import sys

import pytest
import torch

from lcm_distill.kernels.group_norm import group_norm, sum_with_bias
from lcm_distill.kernels.operators import assume_fused
from tests.tensors import random_tensor, relative

SHAPES = {"odd": (2, 64, 23, 23), "wide": (1, 192, 5, 3), "single pixel": (1, 64, 1, 1)}
"""B, C, H, W: more than a chunk of pixels and an odd number of them; channels beyond a tile; nothing to sum over."""
GROUPS, EPS = 32, 1e-6
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
INTERPRET = """
import json
from tests.kernels import test_group_norm as tests
print(json.dumps(tests.differences()))
"""


def differences() -> dict[str, list[float]]:
    """Relative differences of the fused kernels from the plain path, by name and dtype."""
    found: dict[str, list[float]] = {}
    for name, shape in SHAPES.items():
        weight, bias, input_bias = random_tensor((3, shape[1]), 1)
        for dtype in BOUNDS:
            # Far from zero, where a variance from the mean of squares would cancel; and not channels-last.
            x, other = 3 * random_tensor(shape, 2, dtype) + 20, random_tensor(shape, 3, dtype)
            found[f"{name} {dtype}"] = [
                compare(group_norm, x, weight, bias, GROUPS, EPS, True, input_bias),
                compare(sum_with_bias, x, other, bias),
            ]
    found["without SiLU and input bias"] = [compare(group_norm, x, weight, bias, GROUPS, EPS, False)]
    return found


def compare(function, *inputs) -> float:
    with assume_fused():
        fused = function(*inputs)
    plain = function(*inputs)
    assert fused.dtype == plain.dtype == inputs[0].dtype
    assert fused.is_contiguous(memory_format=torch.channels_last)
    return relative(fused, plain)


def test_the_fused_kernels_give_what_the_plain_path_gives():
    """In a process of its own, as Triton reads whether to interpret when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", INTERPRET], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert max(found.pop("without SiLU and input bias")) < BOUNDS[torch.bfloat16]
    assert set(found) == {f"{name} {dtype}" for name in SHAPES for dtype in BOUNDS}
    for dtype, bound in BOUNDS.items():
        assert max(max(found[f"{name} {dtype}"]) for name in SHAPES) < bound


@pytest.mark.parametrize("silu", [True, False])
def test_the_plain_path_is_pytorchs_own(silu):
    x, (weight, bias, input_bias) = random_tensor(SHAPES["odd"], 0), random_tensor((3, 64), 1)
    norm = torch.nn.GroupNorm(GROUPS, 64, EPS)
    norm.load_state_dict({"weight": weight, "bias": bias})
    expected = norm(x + input_bias[:, None, None])
    expected = torch.nn.functional.silu(expected) if silu else expected
    assert torch.equal(group_norm(x, weight, bias, GROUPS, EPS, silu, input_bias), expected)


@pytest.mark.filterwarnings("ignore:AnnAssign:DeprecationWarning")  # Triton's own, on Python 3.13
@pytest.mark.parametrize(("capability", "dtype"), [(80, "bf16"), (90, "bf16"), (90, "fp32")])
def test_kernels_compile_for_gpus(capability, dtype):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lcm_distill.kernels.gpu import group_norm as kernels

    image, exact = f"*{dtype}", "*fp32"
    tile = {"tile_pixels": 32, "tile_channels": 128}
    sources = [
        (kernels._chunk_moments, [image, exact, exact, "i32", "i32"], {"chunk": 512, **tile}),
        (
            kernels._scale_and_shift,
            [exact, exact, image, image, image, exact, exact, "i32", "i32", "fp32"],
            {"chunk": 512, "group": 12, "tile_chunks": 32, "tile_channels": 16, "has_input_bias": True},
        ),
        (kernels._normalise, [image, exact, exact, image, "i32", "i32"], {"silu": True, **tile}),
        (kernels._sum_with_bias, [image, image, image, image, "i32", "i32"], tile),
    ]
    for kernel, types, constants in sources:
        signature = dict(zip(kernel.arg_names, [*types, *["constexpr"] * len(constants)], strict=True))
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
