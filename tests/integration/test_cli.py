"""The command line: exit codes, one-line errors, JSON, dry runs."""

import json
import signal
import subprocess
import sys
import time

import duckdb
import pytest
from safetensors.torch import save_file

from lcm_distill import assets
from lcm_distill.config import load_file
from lcm_distill.models.checkpoint import read_tensors
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import PROCESS, lcm, shapes
from tests.conftest import SMALL

SMALL_OPTIONS = shapes(SMALL)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from lcm_distill.cli import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "heavy = {'torch', 'diffusers', 'open_clip', 'zarr', 'pyarrow', 'duckdb', 'numpy', 'matplotlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["precompute", "--preset", "shapes", "--set", "data.imges=1"], "unknown key data.imges: did you mean images?"),
        (["run", "--preset", "shape"], "unknown preset 'shape'"),
        (["status"], "does not exist"),
        (["precompute", "--preset", "microdit_xl_512"], "data.root is missing"),
        (["precompute", "--preset", "shapes", "--config", "x.toml"], "exclude each other"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(tmp_path, arguments, message):
    result = lcm(*arguments, "--run", tmp_path / "run")
    last = result.stderr.strip().splitlines()[-1]
    assert result.exit_code == 2, result.output
    assert last.startswith("lcm: ") and message in last


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["distill", "--set", "model.teacher=nowhere.pt"], "run `lcm precompute --run"),
        (["evaluate"], "run `lcm distill --run"),
        (["schedule"], "run `lcm distill --run"),
        (["export"], "run `lcm distill --run"),
        (["cache", "compact"], "run `lcm precompute --run"),
    ],
)
def test_what_a_run_lacks_is_one_line_and_exit_code_2(tmp_path, small_config, command, message):
    RunFolder(tmp_path).open(small_config)
    result = lcm(*command, "--run", tmp_path)
    last = result.stderr.strip().splitlines()[-1]
    assert result.exit_code == 2, result.output
    assert last.startswith("lcm: ") and message in last


@pytest.mark.parametrize(
    "preset", ["shapes", "original", pytest.param("microdit_xl_512", marks=pytest.mark.slow)]
)  # plans of XL take half a minute; those of docs/ are made by test_docs_run
def test_dry_run_plans_everything_and_writes_nothing(tmp_path, preset):
    result = lcm("run", "--preset", preset, "--run", tmp_path / "run", "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert list(plan) == ["precompute", "distill", "evaluate"]
    assert not (tmp_path / "run").exists()
    if preset == "microdit_xl_512":
        assert plan["distill"]["parameters"] == 1_167_017_232
        assert plan["distill"]["gflop_per_forward"] == pytest.approx(1131.9 - 131.0, abs=0.1)
        for how in ("kept", "recomputed"):  # a batch of 256 fits 80 GB in passes of so many, with a margin of 10 %
            assert plan["distill"][f"micro_batch_80_gb_{how}"] >= 16
            assert plan["distill"][f"gb_used_{how}"] <= 72
        assert plan["precompute"]["latent_bytes_per_sample"] == 4 * 64 * 64 * 2


def test_stages_one_by_one_then_status_and_inspect(tmp_path):
    for stage in ("precompute", "distill", "evaluate"):
        assert lcm(stage, *SMALL_OPTIONS, "--run", tmp_path, "--json").exit_code == 0
    status = json.loads(lcm("status", "--run", tmp_path, "--json").stdout)
    assert status["precompute"]["done"] == status["precompute"]["tasks"] > 5
    assert status["distill"]["done"] == 6 and status["student"]
    rows = json.loads(
        lcm("inspect", "SELECT model, sampler, steps FROM metrics ORDER BY ALL", "--run", tmp_path, "--json").stdout
    )
    assert {"model": "student", "sampler": "consistency", "steps": 2} in rows
    plain = duckdb.execute(
        f"SELECT DISTINCT model, sampler, steps FROM '{tmp_path}/metrics.parquet' WHERE model != 'real'"
    ).fetchall()
    assert sorted(plain) == [
        ("student", "consistency", 1),
        ("student", "consistency", 2),
        ("teacher", "euler", 2),
        ("teacher", "heun", 3),
    ]
    assert "Fréchet distance" in lcm("evaluate", "--run", tmp_path).stdout  # settings come from the run folder


def test_inspect_reads_the_run_and_nothing_else(finished_run):
    refused = lcm("inspect", "SELECT * FROM read_csv('/etc/passwd')", "--run", finished_run.root)
    assert refused.exit_code == 2 and "DuckDB" in refused.stderr
    assert lcm("inspect", "SELEC 1", "--run", finished_run.root).exit_code == 2


@pytest.mark.parametrize(
    ("command", "assignment", "message"),
    [
        ("precompute", "data.images=80", "images was made with data.images = 72, not 80: choose another --run"),
        ("evaluate", "encoders.vae='other'", "cache was made with encoders.vae = 'shapes', not 'other'"),
        ("evaluate", "seed=1", "was made with seed = 0, not 1"),
        ("distill", "distill.huber=0.5", "distill was made with distill.huber = 0.03, not 0.5"),
        ("evaluate", "diffusion.sigma_max=70", "distill was made with diffusion.sigma_max = 80.0, not 70.0"),
    ],
)
def test_other_settings_in_a_finished_run_are_refused(finished_run, command, assignment, message):
    before = finished_run.config.read_text()
    result = lcm(command, "--run", finished_run.root, "--set", assignment)
    assert result.exit_code == 2 and message in result.stderr
    assert finished_run.config.read_text() == before


def test_settings_that_change_no_result_may_change(finished_run):
    assert lcm("distill", "--run", finished_run.root, "--set", "encoders.batch_size=3").exit_code == 0
    assert lcm("distill", "--run", finished_run.root, "--set", "encoders.batch_size=8").exit_code == 0


def test_another_teacher_is_refused(finished_run, tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    save_file({name: 1.01 * tensor for name, tensor in read_tensors(assets.TEACHER).items()}, teacher)
    result = lcm("distill", "--run", finished_run.root, "--set", f"model.teacher='{teacher}'")
    assert result.exit_code == 2 and "was trained with other settings" in result.stderr
    assert lcm("distill", "--run", finished_run.root, "--set", "model.teacher='shapes'").exit_code == 0


def test_sample_writes_a_grid(tmp_path):
    from PIL import Image

    out = tmp_path / "grid.png"
    result = lcm("sample", "a large red circle in the centre on a navy background", "--steps", "1,2", "--out", out)
    assert result.exit_code == 0, result.output
    with Image.open(out) as grid:
        assert grid.size[0] > 2 * 128


@pytest.mark.slow
def test_ctrl_c_ends_in_one_line(tmp_path):
    command = [
        *PROCESS,
        "run",
        *SMALL_OPTIONS,
        "--run",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore the signal, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (tmp_path / "cache" / "manifest").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.strip().splitlines()[-1] == "lcm: interrupted; the same command resumes from here"


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_file_for_the_folder_of_generated_images_is_refused(tmp_path, dry):
    (tmp_path / "file").touch()
    words = ["precompute", *SMALL_OPTIONS, "--set", f"data.root={tmp_path / 'file'}", "--run", tmp_path / "run", *dry]
    refused = lcm(*words)
    said = f"data.root = '{tmp_path / 'file'}' is a file: name a folder, into which images are generated"
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (2, f"lcm: {said}")


def test_a_plan_says_how_many_images_are_generated_and_where(tmp_path, finished_run):
    words = ["precompute", *SMALL_OPTIONS, "--dry-run", "--json", "--run"]
    new = json.loads(lcm(*words, tmp_path / "run", "--set", f"data.root={tmp_path / 'made'}").stdout)["precompute"]
    assert (new["root"], new["images_to_generate"]) == (
        str(tmp_path / "made"),
        load_file(finished_run.config).data.images,
    )
    assert "images_to_generate" not in json.loads(lcm(*words, finished_run.root).stdout)["precompute"]
