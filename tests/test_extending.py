"""The additions of docs/extending.md work: applied to a copy of the package, all stages run with them."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from lcm_distill import assets
from lcm_distill.config import Config
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import PROCESS, shapes
from tests.conftest import SMALL

ROOT = Path(__file__).parents[1]
STEP = re.compile(r"(?:`(src/[\w/]+\.py)`:\n\n)?```(python|diff)\n(.*?)```", re.DOTALL)
"""A block, after the name of its file; further blocks of the same file have none."""


def apply_additions(root: Path) -> list[str]:
    """Write and change the files of a copy of the repository as the guide says; returns their names."""
    changed, name = list[str](), ""
    for named, kind, block in STEP.findall((ROOT / "docs" / "extending.md").read_text()):
        name = named or name
        changed.append(name)
        path = root / name
        if kind == "python":
            assert not path.exists()
            path.write_text(block)
            continue
        lines = block.splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " -")
        new = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " +")
        content = path.read_text()
        assert content.count(old) == 1, f"{name} has not once: {old}"
        path.write_text(content.replace(old, new))
    return changed


@pytest.fixture
def data_set(small_config: Config, finished_run: RunFolder, tmp_path: Path) -> Path:
    """The images of `shapes`, listed as the example source has it, and a line that is none."""
    root = tmp_path / "data"
    root.mkdir()
    lines, catalog = ["a line without a caption"], finished_run.cache / "catalog"
    with duckdb.connect() as connection:
        rows = connection.sql(
            f"SELECT path, captions[caption_row + 1] FROM '{catalog}/samples.parquet', "
            f"(SELECT list(caption) AS captions FROM '{catalog}/captions.parquet')"
        ).fetchall()
    for path, caption in rows:
        (source,) = finished_run.images.rglob(Path(path).name)
        shutil.copy(source, root / source.name)
        lines.append(f"{source.name}\t{caption}")
    (root / "images.tsv").write_text("\n".join(lines) + "\n")
    return root


def test_a_metric_an_objective_and_a_source_that_are_added_run(tmp_path, data_set):
    package = tmp_path / "package"
    shutil.copytree(ROOT / "src", package / "src", ignore=shutil.ignore_patterns("__pycache__"))
    assert len(set(apply_additions(package))) == 8
    settings = [
        *SMALL, "data.source=tsv", f"data.root='{data_set}'", "distill.objective=halving", "evaluate.teacher=[]",
        "evaluate.student_steps=[1]", "evaluate.protocols=['shapes', 'mean-colour']",
        f"model.teacher='{assets.TEACHER}'",
    ]  # fmt: skip
    command = [
        *PROCESS,
        "run",
        *shapes(settings),
        "--run",
        "run",
        "--json",
    ]
    finished = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(package / "src")}, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    protocols = {row["protocol"] for row in json.loads(finished.stdout) if row["model"] == "student"}
    assert protocols == {"shapes", "mean-colour"}
    with duckdb.connect() as connection:
        manifest = f"'{tmp_path}/run/cache/manifest/*.parquet'"
        query = f"SELECT source, error FROM read_parquet({manifest}, union_by_name=true) WHERE status = 'quarantined'"
        assert connection.sql(query).fetchall() == [("images.tsv:1", "not a path and a caption")]
