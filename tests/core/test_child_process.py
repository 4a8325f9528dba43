"""What is started ends with the one that started it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

WRITING = (
    "import sys; from pathlib import Path; from lcm_distill.shapes.dataset import write_images\n"
    "if __name__ == '__main__': list(write_images(Path(sys.argv[1]), seed=0, count=1_000_000, width=16))"
)


def children(parent: int) -> list[int]:
    """Processes that run, and that `parent` has started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid, ppid in (line.split() for line in listed.splitlines()) if int(ppid) == parent]


def runs(pid: int) -> bool:
    """Whether a process is there and not just waiting to be buried."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state) and not state.startswith("Z")


def test_rendering_processes_end_when_the_command_is_killed(tmp_path):
    script = tmp_path / "writing.py"
    script.write_text(WRITING)
    command = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    while not any(Path(tmp_path).rglob("*.jpg")):
        assert command.poll() is None
        time.sleep(0.05)
    started = children(command.pid)
    assert started
    command.send_signal(signal.SIGKILL)
    command.wait()
    ends = time.monotonic() + 60
    while any(map(runs, started)):
        assert time.monotonic() < ends, "processes outlive the command"
        time.sleep(0.1)
