"""Values that are not finite end a training; they are neither kept nor published, and it goes on from before them."""

import json
from functools import partial

import pytest

from lcm_distill.training.checkpointing.hashes import damage
from tests.faults.commands import lcm
from tests.faults.spoil import FIGURES, SAMPLES, STATES, spoil
from tests.faults.trainings import checkpoints, copied, held_by

PLACES = ("average", *SAMPLES, *FIGURES, *(place for place in STATES if place != "average"))
STEPS = 4


@pytest.fixture(scope="module")
def unbroken(encoded, tmp_path_factory):
    run = copied(encoded, tmp_path_factory.mktemp("nan") / "unbroken")
    assert lcm("distill", "--run", run).is_clean(0)
    return (run / "student.safetensors").read_bytes()


@pytest.mark.trials(full=2 * len(PLACES) * STEPS, sample=3)
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
