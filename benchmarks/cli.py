"""What the commands that only look cost, each as a whole process: seconds, seconds of processor time and peak memory.

make bench-cli      # RUN=runs/shapes for a run that is there; by default a small one is made
                    # prints last: help_seconds=... help_cpu=... help_mib=... status_seconds=... ...

Each figure is the least of several processes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LCM = [sys.executable, "-m", "lcm_distill"]
SMALL = [
    "data.images=200", "distill.steps=20", "distill.matching.weight=0",
    "distill.adversarial.weight=0", "evaluate.images=40",
    "evaluate.teacher=[['euler', 4]]", "evaluate.student_steps=[1, 2]",
]  # fmt: skip


def commands(run: Path, place: Path) -> dict[str, list[str]]:
    """The commands that are measured, by name."""
    return {
        "help": ["--help"],
        "status": ["status", "--run", str(run)],
        "inspect": ["inspect", "FROM metrics", "--run", str(run)],
        "verify": ["verify", "--run", str(run)],
        "compare": ["compare", str(run), "--out", str(place / "compare")],
    }


def cost(words: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds of processor time, and peak memory in MiB of a command, as a process of its own.

    Raises:
        RuntimeError: it fails.
    """
    began = time.perf_counter()
    process = subprocess.Popen([*LCM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"lcm {' '.join(words)} ended with {process.returncode}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure every command, and print what each costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run = arguments.run or place / "run"
        if arguments.run is None:
            chosen = [word for setting in SMALL for word in ("--set", setting)]
            subprocess.run([*LCM, "run", "--preset", "shapes", "--run", str(run), *chosen], check=True)
        costs = {name: [cost(words) for _ in range(arguments.repeats)] for name, words in commands(run, place).items()}
    figures: list[str] = []
    for name, measured in costs.items():
        seconds, cpu, mib = (min(values) for values in zip(*measured, strict=True))
        print(f"{name:8} {seconds:5.2f} s, {cpu:5.2f} s of a processor, {mib:4.0f} MiB")
        figures += [f"{name}_seconds={seconds:.2f}", f"{name}_cpu={cpu:.2f}", f"{name}_mib={mib:.0f}"]
    print(*figures)


if __name__ == "__main__":
    main()
