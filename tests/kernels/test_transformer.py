"""The transformer's fused kernels, in Triton's interpreter and through Triton's compiler for GPUs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("interpreted.py")


def test_fused_kernels_give_what_plain_pytorch_gives():
    """In a process of its own, as Triton reads whether to interpret when it is imported."""
    command = [sys.executable, "-m", "pytest", str(CASES), "-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 20


@pytest.mark.filterwarnings("ignore:AnnAssign:DeprecationWarning")  # Triton's own, on Python 3.13
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_gpus(capability):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lcm_distill.kernels.gpu import activations, experts, heads, residual

    low, exact, whole, long = "*bf16", "*fp32", "i32", "*i64"
    block = {"BLOCK": 1024}
    sources = [
        (
            residual.forward_kernel,
            [exact, exact, low, low, low, low, low, exact, low, exact, exact, *[whole] * 6, "fp32"],
            {"BRANCH": True, "GATE": True, "REST": True, "MODULATED": True, **block},
        ),
        (
            residual.backward_kernel,
            [low, exact, exact, exact, low, low, low, exact, exact, exact, low, exact, *[whole] * 4],
            {"PASSED": True, "BRANCH": True, "GATE": True, "MODULATED": True, "ROWS": 32, **block},
        ),
        (residual.add_kernel, [exact, low, low, exact, *[whole] * 3], {"GATE": True, **block}),
        (residual.add_backward_kernel, [exact, low, low, low, exact, *[whole] * 3], {"ROWS": 32, **block}),
        (heads.forward_kernel, [low, low, low, whole, "fp32"], block),
        (heads.backward_kernel, [low, low, low, low, low, whole, "fp32"], block),
        (activations.swiglu_kernel, [low, low, low, whole], block),
        (activations.swiglu_backward_kernel, [low, low, low, low, low, whole], block),
        (activations.gelu_backward_kernel, [low, low, low, whole], block),
        (experts.combine_kernel, [low, exact, "*i32", low, whole, whole], {"GATED": True, "EXPERTS": 8, **block}),
        (experts.combine_backward_kernel, [low, low, exact, long, low, exact, whole], block),
    ]
    for kernel, types, constants in sources:
        signature = dict(zip(kernel.arg_names, [*types, *["constexpr"] * len(constants)], strict=True))
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
