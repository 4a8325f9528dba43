"""What one GPU makes of distilling (the objective alone), generating and encoding, beside the rate of matrix products.

make bench-gpu                        # at most eight minutes
python benchmarks/gpu.py --rehearse   # every section, tiny and on the CPU: it shows that they run

prints last: distill_of_matmul=... draw_images_s=... encode_images_s=... start_s=... plan_error=...
and then, of a step in either way, the kernels that take longest. Where they take less than the step does, the GPU waits
for the host.

`gpu_sections.py` has what is measured. `start_s` goes from starting `lcm distill` to the end of its first step, kernels
having been compiled before. `plan_error` is the distance of planned from measured peak memory, over the latter, and the
larger of the two. Each section is a process with a time limit of its own: one that hangs costs its own figures alone.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_sections import PASSES, REAL, REHEARSAL, SECTIONS, Scale

TOTAL_SECONDS = 480
LAST = ("distill_of_matmul", "draw_images_s", "encode_images_s", "start_s", "plan_error")


@dataclass
class Report:
    """What sections have told, and until when they may."""

    scale: Scale
    deadline: float
    figures: dict[str, Any] = field(default_factory=dict)

    def run(self, section: Callable[[Scale, Path], None], limit: float, folder: Path) -> None:
        """Run a section; what it told before it ended, or was ended, counts."""
        name, limit = section.__name__, min(limit, self.deadline - time.monotonic())
        if limit <= 0:
            print(f"{name}: no time left", flush=True)
            return
        output, errors = folder / f"{name}.out", folder / f"{name}.err"
        command = [sys.executable, __file__, "--section", name, "--folder", str(folder)]
        command += ["--rehearse"] if self.scale is REHEARSAL else []
        began = time.monotonic()
        with output.open("w") as out, errors.open("w") as err:
            child = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
            ended = _wait(child, limit)
        lines = output.read_text().splitlines()
        told = {key: value for line in lines if line.startswith("{") for key, value in json.loads(line).items()}
        self.figures |= told
        shown = ", ".join(f"{key} {value:.4g}" for key, value in told.items() if isinstance(value, float))
        print(f"{name}: {ended} in {time.monotonic() - began:.0f} s: {shown}", flush=True)
        if ended != "done":
            print("\n".join(errors.read_text().splitlines()[-12:]), flush=True)

    def summary(self) -> str:
        """The last line."""
        figures = self.figures
        rates = [figures[f"{name}_flop_s"] for name in PASSES if f"{name}_flop_s" in figures]
        pairs = [(figures.get(f"{name}_planned_gb"), figures.get(f"{name}_peak_gb")) for name in PASSES]
        errors = [abs(planned - measured) / measured for planned, measured in pairs if planned and measured]
        if rates and "matmul_flop_s" in figures:
            figures["distill_of_matmul"] = max(rates) / figures["matmul_flop_s"]
        if errors:
            figures["plan_error"] = max(errors)
        return " ".join(f"{name}={figures.get(name, float('nan')):.3g}" for name in LAST)


def _wait(child: subprocess.Popen[bytes], limit: float) -> str:
    try:
        code = child.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return "ended by its time limit"
    return "done" if code == 0 else f"failed with {code}"


def main() -> None:
    """Run all sections, or one of them in its own process."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rehearse", action="store_true")
    arguments.add_argument("--section", choices=[section.__name__ for section in SECTIONS])
    arguments.add_argument("--folder", type=Path)
    options = arguments.parse_args()
    scale = REHEARSAL if options.rehearse else REAL
    if options.section:
        next(section for section in SECTIONS if section.__name__ == options.section)(scale, options.folder)
        return
    if scale is REAL and not torch.cuda.is_available():
        print("PyTorch finds no CUDA device: --rehearse runs every section, tiny, on the CPU")
        return
    print(torch.cuda.get_device_name() if scale is REAL else "rehearsal on the CPU: figures mean nothing", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Report(scale, time.monotonic() + TOTAL_SECONDS)
        for section, limit in SECTIONS.items():
            report.run(section, limit, Path(folder))
    print(report.summary())
    for name in PASSES:
        print(f"{name}:", *report.figures.get(f"{name}_kernels", ["no kernels were measured"]), sep="\n")


if __name__ == "__main__":
    main()
