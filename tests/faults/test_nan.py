"""Values that are not finite end a training; they are neither kept nor published, and it goes on from before them."""

import json
from functools import partial

import pyarrow.parquet as pq
import pytest

from lcm_distill import assets
from lcm_distill.training.checkpointing.hashes import damage
from tests.faults.commands import lcm
from tests.faults.spoil import FIGURES, SAMPLES, STATES, spoil, spoil_encoder, spoil_weights
from tests.faults.trainings import TINY, checkpoints, copied, held_by, options

PLACES = ("average", *SAMPLES, *FIGURES, *(place for place in STATES if place != "average"))
STEPS = 4


@pytest.fixture(scope="module")
def unbroken(encoded, tmp_path_factory):
    run = copied(encoded, tmp_path_factory.mktemp("nan") / "unbroken")
    assert lcm("distill", "--run", run).is_clean(0)
    return (run / "student.safetensors").read_bytes()


@pytest.mark.trials(full=len(PLACES) * STEPS, sample=1)
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_nan(trials, encoded, unbroken, tmp_path):
    """NaN from cached latents, embeddings, teacher, loss, gradient, weights, average, target, moments, at any step."""
    for trial in trials:
        place = PLACES[trial % len(PLACES)]
        step = STEPS - 1 if trial < len(PLACES) else int(trials.random.integers(STEPS))
        run = copied(encoded, tmp_path / "run")
        ended = lcm("distill", "--run", run, fault=partial(spoil, place, step))
        assert ended.is_clean(3), (place, step, ended)
        assert f"in step {step} " in ended.errors and json.loads((run / "distill/stopped.json").read_text())["samples"]
        assert not (run / "student.safetensors").exists()
        kept = checkpoints(run / "distill")
        assert [int(folder.name[-7:]) for folder in kept] == list(range(max(1, step - 1), step + 1))
        for folder in kept:
            assert damage(folder) is None
            assert all(tensor.isfinite().all() for tensor in held_by(folder).values())
        assert lcm("distill", "--run", run).is_clean(0)
        assert (run / "student.safetensors").read_bytes() == unbroken, (place, step)
        assert not (run / "distill/stopped.json").exists()
        trials.count("stopped and resumed to the same bits")


@pytest.mark.trials(full=5, sample=2)
def test_nan_of_encoders(trials, encoded, unbroken, tmp_path):
    """NaN from the VAE, encoding or decoding, or from the text tower: kept out, or ended, and nothing is published."""
    made = copied(encoded, tmp_path / "made")
    (made / "student.safetensors").write_bytes(unbroken)
    given = [("vae", "precompute"), ("decode", "sample"), ("text", "precompute"), ("text", "sample"),
             ("decode", "evaluate")]  # fmt: skip
    for trial in trials:
        place, command = given[trial]
        if command == "precompute":
            run = tmp_path / place
            ended = lcm(
                command, "--preset", "shapes", *options(TINY), "--run", run, fault=partial(spoil_encoder, place)
            )
            rows = pq.read_table(run / "cache/manifest").to_pylist()
            errors = {row["error"] for row in rows if row["status"] == "quarantined"}
            assert ended.is_clean(0) and errors == {
                "vae": {"latents are not finite"}, "text": {"embedding is not finite"}
            }[place]  # fmt: skip
            trials.count("quarantined")
            continue
        run, picture = copied(made, tmp_path / "run"), tmp_path / "picture.png"
        words = ["a red circle", "a blue square", "--steps", 1, "--out", picture] if command == "sample" else []
        ended = lcm(command, *words, "--run", run, fault=partial(spoil_encoder, place))
        assert ended.is_clean(3) and "is not finite: encoders.vae, encoders.text or the " in ended.errors, ended
        assert command != "sample" or "image 1, of 'a blue square'" in ended.errors
        assert not picture.exists() and not (run / "metrics.parquet").exists()
        assert not list(run.glob("evaluate/**/*.png"))
        trials.count("stopped")


def test_features_that_are_not_finite_name_their_weights(encoded, unbroken, tmp_path):
    run, weights = copied(encoded, tmp_path / "run"), tmp_path / "weights.safetensors"
    (run / "student.safetensors").write_bytes(unbroken)
    spoil_weights(str(assets.FEATURES), str(weights))
    ended = lcm("evaluate", "--run", run, "--set", f"evaluate.weights={{shapes='{weights}'}}")
    assert ended.is_clean(3) and "features that are not finite: its weights (SHA-256 " in ended.errors, ended
    assert "set evaluate.weights.shapes" in ended.errors
    assert not list(run.glob("evaluate/reference/*.npz")) and not (run / "metrics.parquet").exists()
