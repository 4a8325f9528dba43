"""The README's examples run."""

import re
import shlex
import shutil
from pathlib import Path

import duckdb
import pytest

from lcm_distill.config import load_preset
from lcm_distill.config.ablation import load_ablation
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def in_run(finished_run, tmp_path, monkeypatch):
    """A folder in which `runs/shapes` is the finished small run with a cache of its own, and `runs/xl` one to begin."""
    run = tmp_path / "runs" / "shapes"
    run.mkdir(parents=True)
    for path in finished_run.root.iterdir():
        if path == finished_run.cache:
            shutil.copytree(path, run / path.name)
        else:
            (run / path.name).symlink_to(path)
    RunFolder(tmp_path / "runs" / "xl").open(load_preset("microdit_xl_512"))
    monkeypatch.chdir(tmp_path)


def test_there_are_examples():
    assert blocks("python") and blocks("sql") and blocks("sh")


@pytest.mark.parametrize("query", blocks("sql"))
def test_queries(in_run, query):
    assert duckdb.execute(query).fetchall()


@pytest.mark.parametrize("code", blocks("python"))
def test_python(in_run, code):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize(
    "line", [line for block in blocks("sh") for line in block.splitlines() if line.startswith("lcm ")]
)
def test_commands(in_run, bucket, line):
    command, *arguments = shlex.split(line, comments=True)[1:]
    expensive = command in ("run", "precompute", "distill", "evaluate", "pretrain", "fetch", "ablate", "schedule")
    result = lcm(command, *arguments, *(["--dry-run"] if expensive else []))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", re.findall(r"^torchrun .*", README, re.MULTILINE))
def test_the_launcher_takes_none_of_our_options_for_its_own(line):
    from torch.distributed.run import parse_args

    arguments = parse_args(shlex.split(line)[1:])
    assert arguments.training_script == "lcm" and arguments.training_script_args[0] in ("precompute", "distill")
    assert arguments.nproc_per_node == "8" and line.endswith(shlex.join(arguments.training_script_args))


def test_every_step_of_the_ablation_is_explained():
    """The table has a row a step of the chain, in its order, by its name and in words."""
    table = README.partition("| | change |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([^`]*)` \| ([^|]*) \|", table, re.MULTILINE)
    assert [name for name, _ in rows] == [step.name for step in load_ablation("shapes").steps if step.in_chain]
    assert all(" " in words for _, words in rows)
