"""Checkpoints from elsewhere stand for a run's own: evaluated, sampled, scheduled and exported by their file."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch

from lcm_distill import assets
from lcm_distill.api import open_model
from lcm_distill.config import load_file, load_preset
from lcm_distill.diffusion.few_step_samplers import Consistency, Original
from lcm_distill.models import build
from lcm_distill.models.checkpoint import checkpoint_sha256, read_description, read_tensors
from lcm_distill.models.student_description import StudentDescription
from lcm_distill.models.weight_shards import write_shards
from lcm_distill.stages.export import export
from tests.command_line import lcm, shapes
from tests.conftest import SMALL

ORIGINAL = [80.0, 17.52783, 2.515219, 0.16975, 0.002]
"""Five steps of the published student."""


@pytest.fixture
def student(tmp_path):
    """A student as the original publishes it: a plain dictionary of tensors, without any description."""
    path = tmp_path / "consistency_dit.pt"
    torch.save(read_tensors(assets.STUDENT), path)
    return path


def test_the_originals_student_is_measured_by_one_command(run, student):
    command = ["--student", student, "--sampler", "original", "--steps", 5, "--guidance", 2, "--models", "student"]
    result = lcm("evaluate", "--run", run.root, *command, "--json")
    assert result.exit_code == 0, result.output
    (row, *_) = [row for row in pq.read_table(run.metrics).to_pylist() if row["model"] == "student"]
    assert (row["sampler"], row["steps"], row["network_evaluations"]) == ("original", 5, 5)
    assert row["sigmas"] == pytest.approx(ORIGINAL, rel=1e-4) and row["checkpoint"] == str(student)
    assert row["checkpoint_sha256"] == checkpoint_sha256(assets.STUDENT)
    assert load_file(run.config).evaluate.student_sampler == "own"  # for this time only


def test_a_run_begins_with_a_student_from_elsewhere(tmp_path, student):
    (tmp_path / "prompts.txt").write_text("a large red circle\na small blue star\n")
    options = shapes([*SMALL, f"evaluate.prompts={tmp_path / 'prompts.txt'}", "evaluate.images=2"])
    command = ["evaluate", *options, "--run", tmp_path / "new", "--student", student, "--sampler", "original"]
    result = lcm(*command, "--steps", 5, "--models", "student", "--images-only")
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "new" / "evaluate").iterdir()
    assert folder.name.startswith("student-original-5-")
    lacking = lcm("evaluate", *options, "--run", tmp_path / "other")
    assert lacking.exit_code == 2 and "does not exist" in lacking.stderr


def test_the_originals_last_step_changes_nothing():
    model = open_model("shapes")
    captions = ["a large red circle in the centre on a navy background"]
    five, four = (
        model.generate(captions, None, 2.0, 2024, sampler=sampler)
        for sampler in (Original(5), Consistency(Original(5).sigmas[:4]))
    )
    assert torch.allclose(five, four, atol=1e-6)
    assert Original(5).sigmas == pytest.approx(ORIGINAL, rel=1e-4) and Original(1).sigmas == pytest.approx((80.0,))


def test_exports_go_round_bit_for_bit(run, tmp_path):
    source, paths = run.student, []
    for form in ("safetensors", "sharded", "pt"):  # each from the one before
        result = lcm("export", "--run", run.root, "--student", source, "--format", form, "--json")
        assert result.exit_code == 0, result.output
        source = json.loads(result.stdout)["file"]
        shutil.move(run.root / f"student-export{'' if form == 'sharded' else '.' + form}", tmp_path / form)
        source = tmp_path / form / "model.safetensors.index.json" if form == "sharded" else tmp_path / form
        paths.append(source)
    assert {checkpoint_sha256(path) for path in paths} == {checkpoint_sha256(run.student)}
    assert all(read_description(path) == read_description(run.student) for path in paths)
    again = lcm("export", "--run", run.root, "--student", paths[2], "--format", "safetensors")
    assert again.exit_code == 0, again.output
    assert read_description(run.root / "student-export.safetensors") == read_description(run.student)
    assert open_model(paths[2]).sampler(2) == open_model(run.student).sampler(2)
    result = lcm("export", "--run", run.root, "--teacher", assets.TEACHER, "--json")
    assert checkpoint_sha256(run.root / "teacher-export.safetensors") == checkpoint_sha256(assets.TEACHER), (
        result.output
    )


def test_shards_are_no_larger_than_asked(tmp_path):
    weights, description = read_tensors(assets.STUDENT), StudentDescription.of(load_preset("shapes")).to_json()
    write_shards(tmp_path, weights, description, shard_bytes=10**6)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2 and all(path.stat().st_size < 1.1 * 10**6 for path in shards)
    index = tmp_path / "model.safetensors.index.json"
    assert checkpoint_sha256(index) == checkpoint_sha256(assets.STUDENT) and read_description(index) == description
    assert open_model(index).sampler(2) == open_model("shapes").sampler(2)


def test_the_folder_of_a_sharded_checkpoint_names_its_index(run, tmp_path):
    folder, out = tmp_path / "sharded", ["--out", tmp_path / "grid.png"]
    index = folder / "model.safetensors.index.json"
    assert lcm("export", "--run", run.root, "--format", "sharded", "--out", folder).exit_code == 0
    commands = [["evaluate", "--run", run.root, "--models", "student"], ["schedule", "--run", run.root],
                ["export", "--run", run.root], ["sample", "a red ring", *out]]  # fmt: skip
    for command in [[*command, "--student", folder] for command in commands] + [[*commands[-1], "--run", folder]]:
        result = lcm(*command)
        assert result.exit_code == 2 and f"give {index}" in result.stderr.strip().splitlines()[-1], result.output
    assert lcm("sample", "a red ring", "--steps", 1, "--run", index, *out).exit_code == 0


def test_a_file_from_elsewhere_is_exported_with_what_is_known_of_it(run, student):
    run.student = student
    found = export(load_file(run.config), run, "safetensors")
    description = read_description(run.root / "student-export.safetensors")
    assert description["guidance_range"] is None and description["sigmas"] == {}
    assert description["model"]["arch"] == "MicroDiT_Nano_2" and "trained_steps" not in found
    assert open_model(run.root / "student-export.safetensors").sampler(2).steps == 2


def test_sigmas_of_a_file_from_elsewhere_go_into_a_copy(run, student):
    before = student.read_bytes()
    settings = ["--set", "schedule.steps=[2]", "--set", "schedule.samples=16"]
    result = lcm("schedule", "--run", run.root, "--student", student, *settings)
    assert result.exit_code == 0, result.output
    scheduled = run.root / "consistency_dit-scheduled.safetensors"
    assert student.read_bytes() == before and checkpoint_sha256(scheduled) == checkpoint_sha256(student)
    assert list(read_description(scheduled)["sigmas"]) == ["2"]
    assert read_description(run.student)["sigmas"].keys() != {"2"}


@pytest.mark.parametrize("command", ["sample", "compare-samplers"])
def test_images_of_a_file_from_elsewhere(tmp_path, student, command):
    options = ["--student", student, "--sampler", "original", "--steps", 2, "--out", tmp_path / "grid.png"]
    options += ["--teacher", assets.TEACHER] if command == "compare-samplers" else []
    result = lcm(command, "a large red circle", *options)
    assert result.exit_code == 0 and (tmp_path / "grid.png").is_file(), result.output


@pytest.mark.parametrize("kind", ["described", "exported", "foreign"])
def test_a_teachers_file_is_no_student(run, tmp_path, kind):
    """One that says so, as the shipped teacher does, and one from elsewhere without a guidance embedder."""
    path, reason = assets.TEACHER, "as its description says"
    if kind == "exported":
        path = tmp_path / "teacher.pt"
        assert (
            lcm("export", "--run", run.root, "--teacher", assets.TEACHER, "--format", "pt", "--out", path).exit_code
            == 0
        )
    if kind == "foreign":
        path, reason = tmp_path / "foreign.pt", "as it has no guidance embedder (cfg_embedder.*)"
        torch.save(read_tensors(assets.TEACHER), path)
    out = ["--out", tmp_path / "grid.png"]
    commands = [
        ["evaluate", "--run", run.root, "--models", "student", "--images-only"], ["schedule", "--run", run.root],
        ["export", "--run", run.root], ["sample", "a red ring", *out], ["compare-samplers", "a red ring", *out],
    ]  # fmt: skip
    said = f"{path} is a teacher's checkpoint, {reason}, and a student is wanted: give a student's, or give it as"
    for command in commands:
        result = lcm(*command, "--student", path)
        assert result.exit_code == 2 and said in result.stderr.strip().splitlines()[-1], result.output
    assert not run.metrics.exists() and not (tmp_path / "grid.png").exists()
    assert not run.evaluate.exists()  # nothing was generated before
    for command in commands[:2]:
        planned = lcm(*command, "--student", path, "--dry-run", "--json")
        assert said in planned.output.replace("\\n", "\n"), planned.output


def test_a_dry_run_sees_a_student_or_teacher_that_the_command_refuses(run, tmp_path):
    """What `lcm evaluate` said before of other sizes came after the teacher's images."""
    wide, cut = tmp_path / "wide.pt", tmp_path / "cut.pt"
    torch.save(build("MicroDiT_Tiny_2", 8, 64, guidance_embedding=True).state_dict(), wide)
    cut.write_bytes(wide.read_bytes()[:50_000])
    wrong = {
        tmp_path: f"checkpoint {tmp_path} is a folder: give the path of a .safetensors file",
        wide: f"{wide} does not fit the model: ", cut: f"checkpoint {cut} cannot be read (it is damaged or incomplete)",
        tmp_path / "gone.pt": "gone.pt is missing: ",
    }  # fmt: skip
    for path, said in wrong.items():
        for command in (["evaluate", "--images-only"], ["schedule"]):
            arguments = [*command, "--run", run.root, "--student", path]
            planned, refused = lcm(*arguments, "--dry-run", "--json"), lcm(*arguments)
            assert said in planned.output, planned.output
            assert refused.exit_code in (2, 3) and said in refused.stderr.strip().splitlines()[-1], refused.output
        planned = lcm("run", *shapes([f"model.teacher={path}"]), "--run", tmp_path / "new", "--dry-run", "--json")
        missing = [json.loads(planned.stdout)[stage]["missing"] for stage in ("distill", "evaluate")]
        assert all(any(said in line for line in lines) for lines in missing), planned.output
    assert not run.evaluate.exists() and not (tmp_path / "new").exists()
    run.cache.unlink()  # a link to the fixture's
    planned = lcm("schedule", "--run", run.root, "--dry-run", "--json")
    assert "run `lcm precompute" in "".join(json.loads(planned.stdout)["schedule"]["missing"]), planned.output


def test_a_students_file_is_no_teacher(run, tmp_path):
    exported = tmp_path / "student.pt"
    assert lcm("export", "--run", run.root, "--format", "pt", "--out", exported).exit_code == 0
    for path in (assets.STUDENT, exported):
        said = f"{path} is a student's checkpoint, as its description says, and a teacher is wanted: give a teacher's"
        for command in (
            ["sample", "a red ring", "--out", tmp_path / "grid.png"], ["export", "--run", run.root],
            ["evaluate", "--run", run.root, "--models", "teacher"],
        ):  # fmt: skip
            result = lcm(*command, "--teacher", path)
            assert result.exit_code == 2 and said in result.stderr, result.output
        planned = lcm("run", *shapes([f"model.teacher={path}"]), "--run", tmp_path / "new", "--dry-run", "--json")
        assert said in planned.output, planned.output


def test_what_is_said_of_a_file_that_opens_no_teacher_is_true(tmp_path, student):
    for path, said in (
        (assets.TEACHER, "is a teacher's file, which does not name its VAE and text encoder: give a run folder"),
        (assets.STUDENT, "is a student's file and holds no teacher: give a run folder"),
        (student, "does not describe its network: give a run folder"),
    ):
        result = lcm("compare-samplers", "a red ring", "--run", path, "--out", tmp_path / "grid.png")
        assert result.exit_code == 2 and f"{path} {said}" in result.stderr, result.output
    result = lcm("sample", "a red ring", "--run", assets.TEACHER, "--out", tmp_path / "grid.png")
    assert "does not describe a student, but a teacher: give a run folder" in result.stderr, result.output
    result = lcm("sample", "a red ring", "--run", student, "--student", assets.STUDENT)
    assert result.exit_code == 2 and f"{student} is a file: beside another checkpoint give a run" in result.stderr


def test_images_of_a_teacher_from_elsewhere(tmp_path, student):
    out = tmp_path / "grid.png"
    result = lcm("sample", "a red ring", "--teacher", assets.TEACHER, "--steps", "2,3", "--out", out, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["steps"] == [2, 3], result.output
    result = lcm("sample", "a red ring", "--teacher", assets.TEACHER, "--out", out, "--json")
    assert json.loads(result.stdout)["steps"] == [30]
    for other in (["--student", student], ["--sampler", "original"]):
        result = lcm("sample", "a red ring", "--teacher", assets.TEACHER, *other, "--out", out)
        assert result.exit_code == 2 and "--teacher excludes --student and --sampler" in result.stderr


def test_the_teacher_keeps_its_samplers_beside_the_originals_student(run, student):
    """One command for both published figures: the student's in five steps, the teacher's as configured."""
    command = ["--student", student, "--sampler", "original", "--steps", 5, "--guidance", 7, "--dry-run", "--json"]
    result = lcm("evaluate", "--run", run.root, *command)
    assert json.loads(result.stdout)["evaluate"]["samplings"] == [
        "teacher, 3 Heun steps, guidance 7", "teacher, 2 Euler steps, guidance 7",
        "student, 5 original steps, guidance 7",
    ]  # fmt: skip


def test_a_file_that_is_missing_or_of_other_sizes_is_one_line(run, tmp_path):
    for command in (["evaluate"], ["schedule"], ["export"]):
        result = lcm(*command, "--run", run.root, "--student", tmp_path / "gone.pt")
        assert result.exit_code == 2 and "gone.pt is missing: give another --student" in result.stderr, result.output


@pytest.mark.parametrize("command", ["evaluate", "distill"])
@pytest.mark.parametrize("sigmas", ["{2=[90.0,2.0]}", "{2=[80.0,0.001]}"])
def test_sigmas_beyond_the_models_range_are_refused(run, command, sigmas):
    steps = ["--steps", 3] if command == "evaluate" else []  # that are not among evaluate.student_steps
    result = lcm(command, "--run", run.root, "--set", f"evaluate.student_sigmas={sigmas}", *steps)
    last = result.stderr.strip().splitlines()[-1]
    assert result.exit_code == 2 and "evaluate.student_sigmas.2 = [" in last, result.output
    assert "must fall from diffusion.sigma_max = 80" in last and "set evaluate.student_sigmas={}" in last
    accepted = lcm("evaluate", "--run", run.root, "--set", "evaluate.student_sigmas={}", *steps, "--dry-run")
    assert accepted.exit_code == 0, accepted.output


@pytest.mark.parametrize("sigmas", ["{2=[2.0,80.0]}", "{2=[2.0,2.0]}", "{2=[80.0,nan]}", "{1=[inf]}", "{2=[80.0]}"])
def test_sigmas_that_are_no_schedule_name_their_key(run, sigmas):
    result = lcm("evaluate", "--run", run.root, "--set", f"evaluate.student_sigmas={sigmas}", "--steps", 3)
    last = result.stderr.strip().splitlines()[-1]
    assert result.exit_code == 2 and "student_sigmas" in last and "student_steps" not in last, result.output
