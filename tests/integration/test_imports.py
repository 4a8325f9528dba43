"""What commands that only look import: no network, and so no second of waiting and no hundreds of megabytes."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "diffusers", "transformers", "open_clip", "zarr", "matplotlib", "PIL", "pandas"}
WHOLE_DATA_SETS = {"pyarrow.dataset", "pyarrow.acero"}
"""What pyarrow reads larger tables with: tens of megabytes for those of a run of thousands of images."""
CODE = """
import json, sys
from lcm_distill.cli import app
app(sys.argv[1:], standalone_mode=False)
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def imported(*words: object) -> set[str]:
    """Modules that a process has imported when a command has succeeded."""
    command = [sys.executable, "-c", CODE, *map(str, words)]
    return {*json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()[-1])}


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["inspect", "SELECT model, value FROM metrics"], {"duckdb", "pyarrow"}),
        (["inspect", "SELECT count(*) FROM manifest", "--json"], {"duckdb", "pyarrow"}),
        (["config", "show"], {"pydantic"}),
    ],
)
def test_a_look_at_tables_imports_what_reads_tables(finished_run, words, needed):
    modules = imported(*words, "--run", finished_run.root)
    assert needed <= modules and not (HEAVY | WHOLE_DATA_SETS) & modules


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_look_at_a_run_imports_no_network(finished_run, command):
    modules = imported(command, "--run", finished_run.root)
    assert "pyarrow" in modules and not (HEAVY - {"PIL"} | WHOLE_DATA_SETS) & modules


REFUSED = [
    ["doctor", "--preset", "nope"],
    ["doctor", "--set", "distill.steps=many"],
    ["run", "--preset", "nope"],
    ["distill", "--preset", "nope"],
    ["ablate", "--preset", "nope", "--dry-run"],
]
REFUSED_CODE = """
import sys
from lcm_distill.cli import app
try:
    app(sys.argv[1:], standalone_mode=False)
except SystemExit as end:
    print(end.code, *sorted({"torch", "pyarrow"} & {*sys.modules}))
"""


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_is_wrong_with_the_configuration_is_said_before_anything_large_is_imported(words):
    result = subprocess.run([sys.executable, "-c", REFUSED_CODE, *words], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["2"] and result.stderr.count("\n") == 1, result


def test_a_comparison_imports_what_draws_charts_and_no_network(finished_run, tmp_path):
    modules = imported("compare", finished_run.root, "--out", tmp_path / "comparison")
    assert "matplotlib" in modules and not (HEAVY - {"PIL", "matplotlib"}) & modules
