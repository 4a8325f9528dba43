"""What configuration chooses about a training, seen in the student it publishes."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from lcm_distill import assets
from lcm_distill.api import create_latent_cm, open_model
from lcm_distill.config import Config, load_preset
from lcm_distill.core.errors import DataError, UserError
from lcm_distill.data.cache.cache import Cache
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.models.checkpoint import read_description, read_tensors
from lcm_distill.stages.distill import distill
from lcm_distill.stages.evaluate import samplings
from lcm_distill.stages.export import export
from lcm_distill.training.student import prepare
from lcm_distill.training.student_loss import StepDraws
from tests.trainings import differ, start

__all__ = ["start"]  # a fixture

PHASED = ["distill.objective=phased", "evaluate.student_steps=[4]"]


@pytest.fixture
def student(start):
    """Weights of the student that settings lead to."""

    def train(*assignments: str) -> dict[str, torch.Tensor]:
        config, run = start("distill.checkpoint_every=3", "engine.tensorboard=false", *assignments)
        list(distill(config, run))
        return read_tensors(run.student)

    return train


def test_every_choice_changes_the_student(student):
    default = student()
    choices = [
        *(["distill.objective=" + name] for name in ("discrete", "scm")),
        PHASED,
        ["distill.sigma_distribution=uniform"],
        ["distill.distance=l2"],
        ["distill.solver=euler"],
        ["distill.solver=heun"],
        ["distill.target_decay=0"],
        ["distill.guidance_embedder=random"],
        ["distill.publish=raw"],
        ["distill.matching.weight=1", "distill.matching.start=0"],
    ]
    assert not differ(default, student())
    assert [choice for choice in choices if not differ(default, student(*choice))] == []


def test_phased_student_draws_along_its_edges_and_no_other_way(start):
    config, run = start(*PHASED, "distill.phased.edges=[8.0, 2.0, 0.5]")
    list(distill(config, run))
    assert read_description(run.student)["phases"] == [80.0, 8.0, 2.0, 0.5]
    assert [sampling.name for sampling in samplings(config) if sampling.model == "student"] == ["student-phased-4"]
    model = open_model(run.root)
    images = model.generate("a green ring", None, 2.0, seed=0)
    assert images.shape == (1, 3, 64, 64)
    assert torch.equal(images, model.generate("a green ring", 4, 2.0, seed=0))
    with pytest.raises(UserError, match=r"2 steps are asked for: .* in 4 phases and samples in 4 steps"):
        model.generate("a green ring", 2, 2.0, seed=0)


def test_student_starts_as_its_teacher_unless_its_guidance_embedder_is_random(start):
    teacher = read_tensors(assets.TEACHER)
    last_layers = []
    for start_of_embedder in ("zero", "random"):
        weights = prepare(*start(f"distill.guidance_embedder={start_of_embedder}")).model.state_dict()
        assert all(torch.equal(weights[name], tensor.float()) for name, tensor in teacher.items())
        last_layers.append(weights["cfg_embedder.mlp.2.weight"])
    assert not last_layers[0].any()
    assert last_layers[1].std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("assignments", "kept"),
    [([], True), (["distill.target_decay=0"], False), (["distill.objective=scm"], False)],
)
def test_an_average_for_targets_is_kept_where_it_is_asked(start, assignments, kept):
    training = prepare(*start(*assignments))
    assert ("target" in training.modules) == kept


def test_raw_weights_are_the_last_ones(start):
    config, run = start("distill.publish=raw", "distill.learning_rate=1e-3", "distill.decay_fraction=0")
    list(distill(config, run))
    training = prepare(config, run)
    list(training.run())  # from its last checkpoint
    published = read_tensors(run.student)
    assert not differ(published, training.model.state_dict())
    assert differ(published, training.average.state_dict())


def draws_of(config: Config) -> StepDraws:
    return StepDraws(config.distill, config.diffusion, config.distill_seed)


def test_noise_levels_and_guidance_are_drawn_as_configured():
    rows = range(4000)
    lognormal, uniform = (
        draws_of(load_preset("shapes", [f"distill.sigma_distribution={name}"])) for name in ("lognormal", "uniform")
    )
    sigma = lognormal.sigmas(0.01, 0, rows)
    inner = sigma[sigma < 80].log()
    assert (sigma == 80).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert inner.mean().item() == pytest.approx(0, abs=0.1) and inner.std().item() == pytest.approx(1.8, abs=0.1)
    sigma = uniform.sigmas(0.002, 0, rows)
    assert sigma.median().item() == pytest.approx(karras_sigmas(3, 0.002, 80, 7)[1].item(), rel=0.15)
    assert sigma.min() >= 0.002 and sigma.max() <= 80
    guidance = draws_of(load_preset("original")).guidance(0, rows)
    assert guidance.min() >= 1 and guidance.max() <= 10
    assert guidance.mean().item() == pytest.approx(5.5, abs=0.1)


def test_a_loss_that_is_not_finite_stops_with_checkpoints_and_names_the_samples(start):
    config, run = start("distill.steps=6", "engine.micro_batch=3")
    training = prepare(config, run)
    real_loss = training.loss
    training.loss = lambda step, batch: {
        name: term * (float("nan") if step == 4 else 1) for name, term in real_loss(step, batch).items()
    }
    with pytest.raises(DataError, match=r"distill: in step 4 the loss is nan; its samples are rows \d+, .* intact"):
        list(training.run())
    assert training.checkpoints.steps() == [2, 4]
    told = json.loads((run.distill / "stopped.json").read_text())["samples"]
    assert [sample["row"] for sample in told] == training.batches.samples(4).tolist() and len(told) == 8
    sources = {row["row"]: row["path"] for row in Cache.local(config, run).read_catalog().samples.to_pylist()}
    assert all(sample["source"] == sources[sample["row"]] for sample in told)
    list(distill(config, run))  # the same steps again, without what went wrong
    assert run.student.is_file()


def test_validation_leaves_a_grid_and_figures_and_changes_no_weight(start, finished_run):
    config, run = start("distill.steps=6", "engine.validate_every=3", "engine.validation_images=8")
    run.images = finished_run.images
    list(distill(config, run))
    assert run.student.read_bytes() == finished_run.student.read_bytes()
    places = sorted(path.name for path in (run.distill / "validation").glob("step-*"))
    assert places == ["step-0000003", "step-0000006"]
    rows = pq.read_table(run.distill / "validation" / places[1] / "metrics.parquet").to_pylist()
    measured = [(row["model"], row["steps"]) for row in rows if row["metric"] == "frechet_distance"]
    assert measured == [("teacher", 3), ("student", 1), ("student", 2)]
    assert {path.name for path in (run.distill / "validation" / places[0]).iterdir()} == {"grid.png", "metrics.parquet"}
    before = {path: path.stat().st_mtime_ns for path in run.distill.rglob("*.png")}
    list(distill(config, run))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_validation_needs_no_sampler_of_the_teacher(start, finished_run):
    config, run = start("engine.validate_every=3", "engine.validation_images=4", "evaluate.teacher=[]")
    run.images = finished_run.images
    list(distill(config, run))
    rows = pq.read_table(run.distill / "validation/step-0000003/metrics.parquet").to_pylist()
    assert {(row["model"], row["steps"]) for row in rows} == {("student", 1), ("student", 2)}


@pytest.mark.parametrize("key", ["weights", "reference"])
def test_what_a_validation_lacks_is_found_before_the_first_step(start, key):
    config, run = start("engine.validate_every=3", f"evaluate.{key}.shapes=gone.npz")
    with pytest.raises(UserError, match=r"gone\.npz"):
        list(distill(config, run))
    assert not list((run.distill / "checkpoints").glob("*"))


def test_export_is_the_student_in_either_form_finished_or_not(start, tmp_path):
    config, run = start("distill.steps=6")
    with pytest.raises(UserError, match="checkpoints is missing: run `lcm distill --run"):
        export(config, run, "pt")
    training = prepare(config, run)
    for report in training.run():
        if report.done == 5:
            break
    result = export(config, run, "pt", tmp_path / "student.pt")
    assert result["trained_steps"] == 4
    assert set(torch.load(tmp_path / "student.pt", weights_only=True)) == set(training.average.state_dict())
    list(distill(config, run))
    for form in ("pt", "safetensors"):
        path = Path(export(config, run, form)["file"])
        assert not differ(read_tensors(run.student), read_tensors(path))
        model = create_latent_cm("shapes", "shapes", "MicroDiT_Nano_2", path, latent_res=8, in_channels=8)
        assert model.network.cfg_embedder is not None
    assert read_description(path)["role"] == "student"


def test_events_reach_tensorboard(finished_run):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    values = [
        (event.step, value.tag)
        for path in (finished_run.distill / "tensorboard").iterdir()
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    assert {step for step, tag in values if tag == "loss"} == set(range(6))
