"""A run folder may have any name: none is taken for a pattern, for SQL, for markup or for a column."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.data.cache.catalog import SAMPLES
from tests.command_line import lcm
from tests.files import shard_files

NAMES = ["exp[1]", "run with spaces", "ünï", "50%20", "it's", 'say "hi"', "caption=x", "a*b?", "{a,b}", "[bold]"]
ALL_TRAITS = ["exp[1]", 'it\'s 50%20 of "ünï"', "caption=x"]


@pytest.fixture
def run(request, finished_run, tmp_path) -> Path:
    """A finished run of this name, and runs that its name would match as a pattern."""
    for decoy in ("exp1", "aab1", "a", "b"):
        (tmp_path / decoy / "cache" / "catalog").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([], SAMPLES), tmp_path / decoy / "cache" / "catalog" / "samples.parquet")
    return Path(shutil.copytree(finished_run.root, tmp_path / request.param))


@pytest.mark.parametrize("run", ALL_TRAITS, indirect=True)
def test_every_command_works_whatever_the_run_is_called(run, finished_run, tmp_path):
    shutil.rmtree(run / "cache")
    commands = [
        ["precompute"], ["distill"], ["evaluate"], ["verify"], ["verify", "--repair"], ["cache", "compact"],
        ["export"], ["export", "--format", "pt"], ["config", "show"], ["evaluate", "--dry-run"],
        ["sample", "a green ring", "--steps", "1", "--out", run / "sample.png"],
    ]  # fmt: skip
    for words in commands:
        result = lcm(*words, "--run", run)
        assert result.exit_code == 0, (words, result.output)
    assert shard_files(run / "cache") == shard_files(finished_run.cache)
    assert lcm("config", "diff", run, finished_run.root).stdout.strip() == "no difference"
    assert lcm("compare", run, "--out", run / "compare").exit_code == 0
    status = json.loads(lcm("status", "--run", run, "--json").stdout)
    assert status["precompute"]["done"] == status["precompute"]["tasks"] > 5


@pytest.mark.parametrize("run", NAMES, indirect=True)
@pytest.mark.parametrize(("view", "rows"), [("samples", 72), ("events", 6)])
def test_inspect_reads_the_run_itself(run, view, rows):
    result = lcm("inspect", f"SELECT count(*) AS n FROM {view}", "--run", run, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == [{"n": rows}]
