"""A run keeps the configuration that made it: what may change it, what may not, and what failed commands leave."""

import json
import os
import shutil
from pathlib import Path

import pytest

from lcm_distill.commands.printing import show_figures
from lcm_distill.config import load_file, load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm, shapes
from tests.conftest import SMALL


@pytest.fixture
def run(finished_run, tmp_path) -> RunFolder:
    """A run of its own, with all that the finished one has."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished_run.root, folder.root)
    return folder


@pytest.mark.parametrize(
    "command",
    [["distill"], ["distill", "--preset", "shapes"], ["evaluate"], ["evaluate", "--preset", "shapes"], ["precompute"],
     ["run"], ["ablate", "--dry-run"], ["schedule"], ["status"], ["verify"], ["export"],
     ["inspect", "SELECT 1"], ["cache", "compact"], ["cache", "pull"], ["config", "show"]],
)  # fmt: skip
def test_a_run_folder_that_does_not_exist_is_an_error_and_is_not_made(tmp_path, command):
    result = lcm(*command, "--run", tmp_path / "typo")
    assert result.exit_code == 2 and f"{tmp_path / 'typo'} does not exist: " in result.stderr
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        ("precompute", "a new run needs --preset or --config"),
        ("report", "give the folder of a run"),
        ("status", "give the folder of a run"),
    ],
)
def test_a_folder_that_is_no_run_gets_advice_that_the_command_takes(tmp_path, command, remedy):
    refused = lcm(command, "--run", tmp_path)
    line = f"lcm: {tmp_path} is not a run folder: it has no config.toml; {remedy}"
    assert (refused.exit_code, refused.stderr.strip().splitlines()[-1]) == (2, line)


def test_a_command_that_begins_no_run_names_the_one_that_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "lcm: none does not exist: give the folder of a run; `lcm run --preset NAME --run none` begins one\n"
    assert lcm("distill", "--run", "none").stderr == said
    assert lcm("run", "--run", "none").stderr == "lcm: none does not exist: a new run needs --preset or --config\n"


BEGINNING = [["run"], ["precompute"], ["precompute", "--dry-run"], ["pretrain"], ["ablate"]]


@pytest.mark.parametrize("command", BEGINNING, ids=" ".join)
def test_no_run_begins_among_files_of_the_users(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "runs/shapes"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "cat.jpg").write_bytes(b"a photograph")
    said = "photos holds cat.jpg and is not a run folder: it has no config.toml; give --run a folder that is empty or"
    refused = lcm(*command, *shapes(SMALL), "--run", "photos")
    assert (refused.exit_code, refused.stderr) == (2, f"lcm: {said} not there\n")
    if command != ["ablate"]:
        assert "runs/shapes holds cat.jpg" in lcm(*command, *shapes(SMALL)).stderr
    assert sorted(map(str, Path().rglob("*.*"))) == ["photos/cat.jpg", "runs/shapes/cat.jpg"]


def test_a_run_begins_on_another_runs_cache_in_no_folder_of_the_users(run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"a photograph")
    refused = lcm("distill", "--cache", run.root, "--run", tmp_path / "photos")
    assert refused.exit_code == 2 and "photos holds cat.jpg and is not a run folder" in refused.stderr


def test_a_run_begins_where_a_killed_one_left_logs_beside_hidden_files_and_its_configuration(tmp_path):
    for folder in ("logs", "locks"):
        (tmp_path / folder).mkdir()
    for name in (
        "logs/main.log",
        "environment.json",
        "cache.json",
        ".DS_Store",
        ".writing-1@x-config.toml~",
        "run.log",
    ):
        (tmp_path / name).write_text("")
    own = tmp_path / "own.toml"
    own.write_text(load_preset("shapes").to_toml())
    planned = lcm("precompute", "--config", own, "--run", tmp_path, "--dry-run")
    assert planned.exit_code == 0, planned.output


def test_a_first_command_that_fails_leaves_a_cache_that_was_copied(run, tmp_path):
    own = RunFolder(tmp_path / "own")
    own.cache.mkdir(parents=True)
    (own.cache / "shard").write_bytes(b"hours of work")
    with pytest.raises(UserError, match="no"), own.opened(load_file(run.config)):
        raise UserError("no")
    assert (own.cache / "shard").read_bytes() == b"hours of work"


def test_a_preset_that_contradicts_the_run_is_refused_by_its_keys(run):
    before = run.config.read_text()
    result = lcm("evaluate", "--preset", "original", "--run", run.root)
    assert result.exit_code == 2
    assert "distill.objective = 'tuning', not 'discrete'" in result.stderr
    assert "leave --preset original out" in result.stderr
    assert run.config.read_text() == before


def test_the_teacher_of_a_run_is_not_replaced_by_the_presets(run):
    kept = load_file(run.config).changed(["model.teacher='own.safetensors'"], "test")
    run.config.write_text(kept.to_toml())
    result = lcm("evaluate", *shapes(SMALL), "--run", run.root)
    assert result.exit_code == 2 and "model.teacher = 'own.safetensors', not 'shapes'" in result.stderr
    assert load_file(run.config) == kept


def test_options_that_repeat_the_run_are_accepted(run):
    before = run.config.read_text()
    result = lcm("distill", *shapes(SMALL), "--run", run.root)
    assert result.exit_code == 0, result.output
    assert run.config.read_text() == before


@pytest.mark.usefixtures("short_trajectories")
def test_a_sweep_is_in_the_figures_and_not_in_the_configuration(run):
    before = run.config.read_text()
    result = lcm("evaluate", "--run", run.root, "--guidance", "1,2", "--steps", "1", "--json")
    assert result.exit_code == 0, result.output
    students = {(row["steps"], row["guidance"]) for row in json.loads(result.stdout) if row["model"] == "student"}
    assert {(1, 1.0), (1, 2.0)} <= students
    assert run.config.read_text() == before


def test_what_is_set_stays_once_the_command_has_succeeded(run):
    assert lcm("evaluate", "--run", run.root, "--set", "evaluate.batch_size=3").exit_code == 0
    assert load_file(run.config).evaluate.batch_size == 3


def test_a_command_that_is_killed_has_stored_what_a_training_resumes_from_and_nothing_else(run):
    stored = load_file(run.config)
    changed = stored.changed(["evaluate.images=21", "evaluate.seed=9"], "test")
    with run.opened(changed):
        assert load_file(run.config) == stored  # as SIGKILL would leave it
    assert load_file(run.config) == changed
    shutil.rmtree(run.distill)
    with run.opened(other := changed.changed(["distill.steps=7"], "test")):
        assert load_file(run.config) == other


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    result = lcm("sample", "a green ring", "--steps", "1", "--out", tmp_path / "pipe")
    assert result.exit_code == 4 and "exists and is not a regular file" in result.stderr
    assert (tmp_path / "pipe").is_fifo()


PIPED = [["precompute", "--dry-run"], ["precompute"], ["ablate", "--dry-run"], ["config", "show"]]


@pytest.mark.parametrize("command", PIPED, ids=" ".join)
def test_a_configuration_may_come_through_a_pipe(tmp_path, command):
    """As `--config <(...)` gives it: it can be read once, and a command looks at its configuration several times."""
    given = ["data.images=24", "data.valid_fraction=0.5", "cache.shard_rows=24"]
    reading, writing = os.pipe()
    os.write(writing, load_preset("shapes", given).to_toml().encode())
    os.close(writing)
    options = [] if command[0] == "config" else ["--run", tmp_path / "run"]
    result = lcm(*command, "--config", f"/dev/fd/{reading}", *options)
    os.close(reading)
    assert result.exit_code == 0, result.output
    if command == ["precompute"]:
        assert load_file(tmp_path / "run" / "config.toml") == load_preset("shapes", given)


@pytest.mark.parametrize(
    ("path", "message"), [("/dev/zero", "larger than 1,000,000 bytes"), ("{folder}", "give the path of a file")]
)
def test_what_cannot_be_a_configuration_is_one_line(tmp_path, path, message):
    place = path.format(folder=tmp_path)
    result = lcm("config", "show", "--config", place)
    assert result.exit_code != 0 and place in result.stderr and message in result.stderr
    assert result.stderr.count("\n") <= 1


def test_a_command_that_fails_changes_nothing(run):
    before = run.config.read_text()
    run.student.write_bytes(b"no checkpoint")
    result = lcm("evaluate", "--run", run.root, "--set", "evaluate.batch_size=3", "--guidance", "1,2,3")
    assert result.exit_code != 0
    assert run.config.read_text() == before


def test_a_run_that_fails_before_it_has_begun_leaves_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    settings = ["--preset", "shapes", "--set", "data.source=folder", "--set", f"data.root='{tmp_path / 'empty'}'"]
    result = lcm("precompute", *settings, "--run", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "run").exists()


def test_the_traceback_of_a_failure_is_in_the_log_of_the_run(run):
    shutil.rmtree(run.distill)
    for shard in run.cache.glob("latents_64/c/**/0"):
        if shard.is_file():
            shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    assert lcm("--log-level", "debug", "distill", "--run", run.root).exit_code == 3
    log = (run.root / "logs" / "main.log").read_text()
    assert "Traceback (most recent call last)" in log and "DataError" in log


def test_a_plan_lists_what_the_command_would_refuse(tmp_path):
    small = ("--preset", "microdit_xl_512", "--set", "model.arch=MicroDiT_Nano_2")
    result = lcm("distill", *small, "--run", tmp_path / "run", "--dry-run", "--json")
    missing = json.loads(result.stdout)["distill"]["missing"]
    assert len(missing) == 2 and "`lcm precompute --run" in missing[0] and "model.teacher" in missing[1]
    assert lcm("run", *shapes(SMALL), "--run", tmp_path / "run", "--dry-run", "--json").exit_code == 0


@pytest.mark.parametrize("options", [["--set", "distill.huber=0.5"], ["--set", "encoders.weights=random"]])
def test_a_plan_refuses_settings_that_the_command_refuses(run, options):
    command = lcm("distill", "--run", run.root, *options)
    plan = lcm("distill", "--run", run.root, *options, "--dry-run")
    assert plan.exit_code == command.exit_code == 2
    assert plan.stderr == command.stderr


@pytest.mark.slow
def test_a_plan_is_in_units_that_people_read(tmp_path):
    result = lcm("run", "--preset", "microdit_xl_512", "--run", tmp_path / "run", "--dry-run")
    assert "32.8 kB" in result.stdout  # 4 x 64 x 64 float16
    assert "years on this device" in result.stdout


def test_every_key_is_shown_with_value_type_and_meaning():
    rows = {row["name"]: row for row in json.loads(lcm("config", "show", *shapes(SMALL), "--json").stdout)}
    steps = dict(rows["distill.steps"])
    assert steps.pop("on_resume").startswith("is refused, unless")
    assert steps.pop("help").startswith("Optimiser steps. A finished training goes on")
    assert steps == {"name": "distill.steps", "value": 6, "type": "int"}
    assert rows["data.root"]["type"] == "path | None"
    assert rows["engine.sharding"]["type"] == '"none" | "fsdp"'
    assert all(row["help"] for row in rows.values())
    missing = {row["name"]: row for row in json.loads(lcm("config", "show", "--preset", "original", "--json").stdout)}
    assert missing.keys() == rows.keys() and {name for name in missing if not missing[name]["help"]} == set()
    assert missing["pretrain.mask_ratio"]["value"] is None and missing["pretrain.mask_ratio"]["type"] == "float"
    assert "distill.steps = 6  (int)\n    Optimiser steps." in lcm("config", "show", *shapes(SMALL)).stdout


def test_presets_are_listed_with_what_they_are_for():
    rows = {row["preset"]: row["for"] for row in json.loads(lcm("config", "presets", "--json").stdout)}
    assert rows["microdit_xl_512"].startswith("The mission: MicroDiT XL/2 at 512 px")
    assert "shapes" in rows and all(sentence.endswith(".") for sentence in rows.values())


def test_configurations_are_compared(run, tmp_path):
    other = RunFolder(tmp_path / "other")
    other.open(load_file(run.config).changed(["evaluate.images=7"], "test"))
    rows = json.loads(lcm("config", "diff", run.root, other.root, "--json").stdout)
    assert [(row["key"], row[str(other.root)]) for row in rows] == [("evaluate.images", 7)]
    assert lcm("config", "diff", run.root, run.root).stdout.strip() == "no difference"
    changed = {row["key"] for row in json.loads(lcm("config", "diff", run.root, "--json").stdout)}
    assert changed <= {assignment.partition("=")[0] for assignment in SMALL} and "distill.steps" in changed


def test_the_shell_completes_presets_and_keys():
    from lcm_distill.commands.options import complete_key, complete_preset

    assert complete_preset("micro") == ["microdit_xl_512"]
    assert complete_key("distill.lora.") == ["distill.lora.rank=", "distill.lora.alpha="]


def test_figures_are_shown_by_group_with_their_units(capsys):
    show_figures({
        "run": "r", "distill": {"gb_of_states": {"teacher": 2.3}, "micro_batch_80_gb_kept": 19, "gb_here": 25.3,
                                "hours_here": 2.0, "done": True, "missing": [], "loss": None},
    })  # fmt: skip
    lines = [line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["run", "r"], ["memory of states: teacher", "2.3 GB"], ["micro batch 80 gb kept", "19"],
        ["memory of this device", "25.3 GB"], ["time", "2 h 00 min"], ["done", "yes"],
    ]  # fmt: skip
