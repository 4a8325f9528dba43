"""A small ablation: what it writes, what it repeats and what is the same for all."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lcm_distill.config import Config, load_preset
from lcm_distill.config.ablation import load_ablation
from lcm_distill.data.cache.cache import Cache
from lcm_distill.evaluation.image_sets import generate_images
from lcm_distill.evaluation.prompts import held_out_prompts
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.report.figure_columns import LATENTS, of_images
from lcm_distill.stages.ablate import ablate, trials
from lcm_distill.stages.distill import distill
from lcm_distill.training.loop import Trainer
from tests.ablations import SMALL_CHAIN, rows_of
from tests.command_line import lcm, shapes
from tests.conftest import shorten_trajectories
from tests.files import Crash
from tests.runs import borrow

OPTIONS = shapes(SMALL_CHAIN)
TWO_BY_TWO = ["--only", "original,default", "--seeds", 2]


def small_ablation() -> Config:
    """The configuration that `OPTIONS` stand for."""
    return load_preset("shapes", [*load_ablation("shapes").settings, *SMALL_CHAIN])


@pytest.fixture(scope="module", autouse=True)
def _short_trajectories():
    with pytest.MonkeyPatch.context() as patch:
        shorten_trajectories(patch)
        patch.setattr("lcm_distill.stages.ablate.RISE_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def ablation(finished_run, tmp_path_factory):
    """A finished ablation of two steps under two seeds, and what it printed."""
    run = borrow(finished_run, tmp_path_factory.mktemp("ablation"), "images")
    result = lcm("ablate", *OPTIONS, *TWO_BY_TWO, "--run", run.root)
    assert result.exit_code == 0, result.output
    return run, result


def test_rows(ablation):
    run, _ = ablation
    every = of_images(rows_of(run))
    rows = [row for row in every if row["guidance"] in (2.0, None)]
    students = {(row["step"], row["seed"], row["steps"], row["metric"]) for row in rows if row["model"] == "student"}
    metrics = ("frechet_distance", "caption_accuracy")
    assert students == {
        (step, seed, steps, metric)
        for step in ("original", "default") for seed in (0, 1) for steps in (1, 2) for metric in metrics
    }  # fmt: skip
    others = [(row["model"], row["step"], row["seed"], row["metric"]) for row in rows if row["model"] != "student"]
    assert others == [*(("teacher", None, None, metric) for metric in metrics), ("real", None, None, metrics[0])]
    assert len({row["checkpoint_sha256"] for row in rows if row["model"] == "student"}) == 4
    assert {row["images"] for row in every if row["model"] != "real"} == {14}
    elsewhere = [(row["step"], row["seed"], row["steps"], row["guidance"]) for row in every if row not in rows]
    assert elsewhere == [
        *((None, None, 3, scale) for scale in (1.0, 3.0) for _ in metrics),
        *(("default", seed, 2, scale) for seed in (0, 1) for scale in (1.0, 3.0) for _ in metrics),
    ]


def test_every_students_response_to_the_scale_is_measured(ablation):
    run, _ = ablation
    rows = [row for row in rows_of(run) if row["protocol"] == LATENTS]
    slopes = [(row["step"], row["seed"], row["steps"]) for row in rows if row["metric"] == "guidance_slope"]
    assert sorted(slopes) == [
        (step, seed, steps) for step in ("default", "original") for seed in (0, 1) for steps in (1, 2)
    ]
    assert {row["guidance"] for row in rows} == {3.0} and len(rows) == 7 * len(slopes)


def test_text_and_chart(ablation):
    run, result = ablation
    text = run.ablation.with_suffix(".md").read_text()
    values = [
        row["value"]
        for row in rows_of(run)
        if (row["step"], row["steps"], row["metric"], row["guidance"]) == ("default", 1, "frechet_distance", 2.0)
    ]
    distances, hits, *responses = [line for line in text.splitlines() if line.startswith("| `default`")]
    assert f"| {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} |" in distances
    assert len(responses) == 7
    assert distances.count("±") == hits.count("±") == 2 and hits.count("%") == 4
    assert "| teacher, 3 Heun steps" in text and "| real images of other captions" in text
    assert "**shapes: stand-in data" in text and "14 images to a figure" in text and "2 seeds" in text
    assert "`distill.publish = 'raw', not 'average'`" in text
    assert run.ablation.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "shapes: stand-in data" in result.stderr


def test_the_last_line_holds_what_was_run(ablation):
    run, result = ablation
    figures = dict(pair.split("=") for pair in result.stdout.strip().splitlines()[-1].split())
    assert list(figures) == [
        "original_over_ours_1step",
        "ours_over_teacher_2step",
        "ours_over_teacher_1step",
    ]  # there is no 4-step student
    rows = rows_of(run)

    def distance(model, step):
        return np.mean([row["value"] for row in rows if row["metric"] == "frechet_distance" and row["model"] == model
                        and row["step"] == step and row["steps"] in (1, 3) and row["guidance"] == 2])  # fmt: skip

    ours, first, teacher = distance("student", "default"), distance("student", "original"), distance("teacher", None)
    assert float(figures["original_over_ours_1step"]) == pytest.approx(first / ours, rel=1e-3)
    assert float(figures["ours_over_teacher_1step"]) == pytest.approx(ours / teacher, rel=1e-3)


def test_all_share_one_cache_and_seeds_differ(ablation):
    run, _ = ablation
    folders = sorted(path.relative_to(run.ablation) for path in run.ablation.glob("*/*"))
    assert [str(folder) for folder in folders] == [
        "default/seed-0", "default/seed-1", "original/seed-0", "original/seed-1",
    ]  # fmt: skip
    assert not list(run.ablation.rglob("cache"))
    students = {path.read_bytes() for path in run.ablation.rglob("student.safetensors")}
    assert len(students) == 4 and not run.student.exists()


def test_the_first_seed_trains_what_distill_trains(ablation, tmp_path):
    """Captions and noise of `default` are those of `lcm evaluate`, so figures of both compare."""
    run, _ = ablation
    alone = RunFolder(tmp_path, run)
    list(distill(small_ablation(), alone))
    ours, theirs = map(load_file, (run.ablation / "default/seed-0/student.safetensors", alone.student))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_finished_work_is_not_repeated(ablation, monkeypatch):
    run, before = ablation
    monkeypatch.setattr(Trainer, "_step", None)
    monkeypatch.setattr("lcm_distill.api.TextToImage.generate", None)
    assert lcm("ablate", *OPTIONS, *TWO_BY_TWO, "--run", run.root, "--dry-run").exit_code == 0  # they repeat the run's
    again = lcm("ablate", *TWO_BY_TWO, "--run", run.root, "--json")  # settings come from the run folder
    assert again.exit_code == 0, again.output
    result = json.loads(again.stdout)
    stored = rows_of(run)
    assert [row["value"] for row in result["rows"]] == [row["value"] for row in stored]
    assert f"original_over_ours_1step={result['figures']['original_over_ours_1step']:.4g}" in before.stdout


def test_dry_run_tells_steps_and_what_is_done(ablation):
    run, _ = ablation
    plan = json.loads(lcm("ablate", "--run", run.root, "--seeds", 3, "--dry-run", "--json").stdout)
    assert (plan["trainings"], plan["done"]) == (3 * len(plan["steps"]), 4)
    steps = {step["step"]: step for step in plan["steps"]}
    assert steps["default"]["trained_steps"] == {"0": 6, "1": 6, "2": 0} and steps["scm"]["beside"] == "schedule"
    assert steps["huber"]["changes"] == ["distill.distance = 'huber', not 'l2'"]
    shown = lcm("ablate", "--run", run.root, "--dry-run").stdout
    assert "zero-embedder" in shown and "6/6" in shown and "distill.objective = 'scm', not 'tuning'" in shown


def test_dry_run_of_a_new_run_writes_nothing(tmp_path):
    plan = json.loads(lcm("ablate", "--preset", "shapes", "--run", tmp_path / "new", "--dry-run", "--json").stdout)
    samplings = sum(1 if step["step"] == "phased" else 4 for step in plan["steps"])
    samplings += 2  # one of the default's at two other guidance scales
    assert plan["images"] == 3 * 5_000 * samplings and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "original,nothing"], "the ablation has no step 'nothing'"),
        (["--set", "distill.steps=7"], "original/seed-0/distill was made with distill.steps = 6, not 7"),
        (["--preset", "microdit_xl_512"], "no ablation ships for preset 'microdit_xl_512'"),
        (["--set", "encoders.weights=random"], "worth nothing"),
        (["--set", "encoders.weights=random", "--dry-run"], "worth nothing"),
    ],
)
def test_wrong_input_is_one_line(ablation, options, message):
    run, _ = ablation
    before = run.config.read_text()
    result = lcm("ablate", "--run", run.root, *options)
    assert run.config.read_text() == before
    assert result.exit_code == 2 and message in result.stderr.strip().splitlines()[-1]


def test_an_interrupted_ablation_goes_on_where_it_stopped(ablation, tmp_path, monkeypatch):
    """Killed in the second training's fifth step: what is repeated is the one step since its last checkpoint."""
    finished, _ = ablation
    run = borrow(finished, tmp_path, "images", "cache")
    config = small_ablation()
    steps = load_ablation("shapes").select(["original", "default"])
    taken, real_step = [], Trainer._step

    def step(training, number):
        if len(taken) == 6 + 4:
            taken.append("killed")
            raise Crash
        taken.append((training.folder.relative_to(run.ablation).parts[0], number))
        return real_step(training, number)

    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(Crash):
        list(ablate(config, run, steps, 2))
    assert taken[-2:] == [("default", 3), "killed"]
    taken.append("again")
    reports = list(ablate(config, run, steps, 2))
    assert taken[12:] == [("default", 4), ("default", 5)] + [
        (name, number) for name in ("original", "default") for number in range(6)
    ]
    labels = [report.label for report in reports]
    assert "train default, seed 0 (2 of 4)" in labels and "generate original, seed 1 (3 of 4)" in labels
    volatile = ("time", "checkpoint", "seconds_per_image", "commit")
    stable = [[{k: v for k, v in row.items() if k not in volatile} for row in rows_of(one)] for one in (run, finished)]
    assert stable[0] == stable[1]


def test_equal_weights_generate_equal_images(ablation, tmp_path):
    """Captions and noise do not depend on step or seed: one student in two folders generates the same bytes."""
    run, _ = ablation
    config = small_ablation()
    one, other = trials(config, run, load_ablation("shapes").select(["default"]), 2)
    prompts = held_out_prompts(Cache.local(config, run), config.evaluate.images)
    twin = RunFolder(tmp_path / "twin", run)
    shutil.copytree(other.run.root, twin.root)
    shutil.copyfile(one.run.student, twin.student)
    image_sets = replace(other, run=twin).image_sets(prompts)
    list(generate_images("generate", image_sets))
    for image_set, same, different in zip(image_sets, one.image_sets(prompts), other.image_sets(prompts), strict=True):
        assert np.array_equal(image_set.images(range(14)), same.images(range(14)))
        assert not np.array_equal(image_set.images(range(14)), different.images(range(14)))
