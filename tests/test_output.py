"""Standard output that cannot be written: one line that names it, whoever printed."""

import subprocess
import sys
from pathlib import Path

import pytest

PRINTED = {
    "print": "print('x')",
    "a table": "from lcm_distill.report.terminal import Terminal; Terminal().print('x')",
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
@pytest.mark.parametrize("by", PRINTED)
def test_a_full_standard_output_is_named(by, unbuffered, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    code = f"from lcm_distill.commands.errors import one_line_errors\nwith one_line_errors():\n    {PRINTED[by]}"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, *unbuffered, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 4
    assert ended.stderr.startswith("lcm: standard output: No space left on device: ")
    assert ended.stderr.count("\n") == 1
