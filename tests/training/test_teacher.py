"""Training of a teacher: masked, from an earlier stage, from several caches."""

import shutil

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from lcm_distill.config import load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.models import build
from lcm_distill.models.checkpoint import checkpoint_sha256, read_description, read_tensors
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.pretrain import pretrain
from lcm_distill.training.cache_mixture import open_mixture
from lcm_distill.training.engine.world import single_process
from lcm_distill.training.optimiser import learning_rate
from lcm_distill.training.teacher import fingerprint, initial_model, prepare
from tests.conftest import SMALL
from tests.ranks import assert_same_weights, finish, start
from tests.runs import borrow

SHORT = [*SMALL, "pretrain.steps=4", "pretrain.batch_size=8", "pretrain.checkpoint_every=2", "pretrain.mask_ratio=0.75"]


def configure(*assignments: str):
    config = load_preset("shapes", [*SHORT, *assignments])
    assert config.pretrain is not None
    return config, config.pretrain


def test_masked_training_resumes_to_the_same_bits(finished_run, tmp_path):
    published = []
    for stops in ([], [1, 3]):
        config, settings = configure()
        run = borrow(finished_run, tmp_path / str(len(stops)), "cache")
        for stop in stops:
            for report in prepare(config, settings, run).run():
                if report.done == stop:
                    break
        list(pretrain(config, run))
        published.append(read_tensors(run.teacher))
        assert read_description(run.teacher)["role"] == "teacher"
    assert all(torch.equal(published[0][name], published[1][name]) for name in published[0])


def test_a_mask_depends_on_seed_step_and_sample_alone(finished_run, monkeypatch):
    seen = []
    config, settings = configure()
    training = prepare(config, settings, finished_run)
    own = type(training.model).forward

    def forward(model, latents, c_noise, captions, guidance=None, kept=None):
        seen.append(kept)
        return own(model, latents, c_noise, captions, guidance, kept)

    monkeypatch.setattr(type(training.model), "forward", forward)
    for step in (0, 1, 0):
        training.loss(step, training.batches[step])
    assert seen[0].shape == (8, 4)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_a_stage_goes_on_at_another_resolution_with_its_own_positions(tmp_path):
    torch.manual_seed(1)
    earlier = build("MicroDiT_Nano_2", 4, 64, in_channels=8)
    save_file(earlier.state_dict(), tmp_path / "earlier.safetensors")
    config, settings = configure(f"pretrain.start={tmp_path}/earlier.safetensors", "model.pos_interp_scale=2.0")
    model = initial_model(config.model, settings, config.seed)
    assert model.pos_embed.shape == (1, 16, 128)
    # Twice as many patches over the same width: every second one lies where a patch of the earlier grid lay.
    coarse, fine = earlier.pos_embed.view(2, 2, 128), model.pos_embed.view(4, 4, 128)
    assert torch.allclose(fine[::2, ::2], coarse, atol=1e-6)
    own, theirs = dict(model.named_parameters()), dict(earlier.named_parameters())
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)


def test_identity_knows_the_start_by_its_content_and_the_mixture_by_its_shares(tmp_path, finished_run):
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "c.safetensors")
    choices = [
        [],
        *([f"pretrain.start={tmp_path}/{name}.safetensors"] for name in "abc"),
        *([f'pretrain.caches={{"{finished_run.root}"={share}}}'] for share in (0.25, 0.5)),
    ]
    plain, a, b, c, quarter, half = (fingerprint(*configure(*choice)) for choice in choices)
    assert a == b
    assert len({plain, a, c, quarter, half}) == 5


def test_caches_are_mixed_by_share(finished_run, tmp_path):
    own = borrow(finished_run, tmp_path / "own", "cache")
    config, settings = configure(f'pretrain.caches={{"{finished_run.root}"=0.25}}')
    batch = open_mixture(config, settings, own, single_process(config.device))[0]
    assert len(batch.rows) == len(batch.latents) == len(batch.captions) == 8
    # Both hold the same images here; rows of the second are numbered on from those of the first.
    own_batch = open_mixture(*configure(), own, single_process(config.device))[0]
    assert batch.rows[:6].tolist() == own_batch.rows[:6].tolist()
    offsets = batch.rows[6:] - own_batch.rows[:2]
    assert offsets[0] == offsets[1] > own_batch.rows.max()
    assert torch.equal(batch.latents[6:], own_batch.latents[:2])


VALIDATED = ["engine.validate_every=2", "engine.validation_images=8", "engine.tensorboard=false"]


def test_validation_measures_the_average_and_changes_no_weight(finished_run, tmp_path):
    published = []
    for settings in ([], VALIDATED):
        config, _ = configure(*settings)
        run = borrow(finished_run, tmp_path / str(len(settings)), "cache")
        run.images = finished_run.images
        list(pretrain(config, run))
        published.append(read_tensors(run.teacher))
    assert all(torch.equal(published[0][name], published[1][name]) for name in published[0])
    validations = run.pretrain / "validation"
    places = sorted(validations.glob("step-*"))
    assert [place.name for place in places] == ["step-0000002", "step-0000004"]
    assert {path.name for path in places[1].iterdir()} == {"grid.png", "metrics.parquet"}
    first, last = (pq.read_table(place / "metrics.parquet").to_pylist() for place in places)
    assert {(row["model"], row["sampler"], row["steps"], row["images"]) for row in last} == {("teacher", "heun", 3, 8)}
    assert {row["metric"] for row in last} == {"frechet_distance", "caption_accuracy"}
    # Each validation has the weights of its step, and the last one those that are published.
    assert last[0]["checkpoint_sha256"] == checkpoint_sha256(run.teacher) != first[0]["checkpoint_sha256"]


def test_validation_without_a_sampler_is_refused(finished_run):
    config, settings = configure(*VALIDATED, "evaluate.teacher=[]")
    with pytest.raises(UserError, match=r"engine.validate_every needs a sampler, and evaluate.teacher is empty"):
        prepare(config, settings, finished_run)


def test_validation_without_held_out_captions_fails_before_the_first_step(finished_run, tmp_path):
    config, settings = configure(*VALIDATED, f'pretrain.caches={{"{finished_run.root}"=1.0}}')
    trainer = prepare(config, settings, RunFolder(tmp_path))
    with pytest.raises(UserError, match="is missing: run `lcm precompute --run"):
        list(trainer.run())
    assert trainer.checkpoints.steps() == []


def train(config, run: RunFolder) -> None:
    list(pretrain(config, run))


def test_ranks_train_on_a_mixture_as_one_does(finished_run, tmp_path):
    losses, published = [], []
    for ranks in (1, 2):
        config, _ = configure(f'pretrain.caches={{"{finished_run.root}"=0.25}}', "engine.tensorboard=false")
        run = borrow(finished_run, tmp_path / str(ranks), "cache")
        assert finish(start(ranks, train, config, run)) == [0] * ranks
        events = sorted((run.pretrain / "events").iterdir())
        losses.append([loss for path in events for loss in pq.read_table(path)["loss"].to_pylist()])
        published.append(read_tensors(run.teacher))
    assert_same_weights(*published)
    assert len(losses[0]) == 4 and losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_sample_of_a_mixture_is_named_with_its_run(finished_run, tmp_path):
    own = borrow(finished_run, tmp_path / "own", "cache")
    config, settings = configure(f'pretrain.caches={{"{finished_run.root}"=0.25}}')
    training = prepare(config, settings, own)
    rows = training.batches.samples(0).tolist()
    named, plain = training.sources(rows), prepare(*configure(), own).sources(rows[:6])
    assert named == [f"{own.root}: {path}" for path in plain] + [f"{finished_run.root}: {path}" for path in plain[:2]]


def test_a_run_without_a_cache_of_its_own_trains_on_others(finished_run, tmp_path):
    config, settings = configure(f'pretrain.caches={{"{finished_run.root}"=1.0}}')
    list(pretrain(config, RunFolder(tmp_path)))
    assert read_tensors(tmp_path / "teacher.safetensors")
    assert not (tmp_path / "cache").exists() and settings.own_share == 0


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (['pretrain.caches={"nowhere"=0.5}'], "nowhere/config.toml is missing: name folders of runs"),
        (["encoders.dtype=bfloat16"], "was made with encoders.dtype = 'float32', not 'bfloat16'"),
        (["pretrain.start=nowhere.pt"], "nowhere.pt is missing"),
        (["pretrain.mask_ratio=0.95"], "mask_ratio = 0.95 keeps 1 patch, too few for 4 experts"),
    ],
)
def test_what_does_not_fit_is_refused(finished_run, tmp_path, assignments, message):
    caches = f'pretrain.caches={{"{finished_run.root}"=0.5}}'
    config, settings = configure(caches, *assignments)
    with pytest.raises(UserError) as caught:
        prepare(config, settings, finished_run)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_cosine_decay_falls_to_its_share():
    _, settings = configure(
        "pretrain.steps=100", "pretrain.warmup_steps=0", "pretrain.decay_fraction=1", "pretrain.decay=cosine",
        "pretrain.decay_to=0.25", "pretrain.learning_rate=1.0",
    )  # fmt: skip
    rates = [learning_rate(settings, step) for step in (0, 50, 100)]
    assert rates == pytest.approx([1.0, 0.625, 0.25])
