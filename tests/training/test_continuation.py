"""A finished training continued: the bits of one longer training, or one line that says what must be given."""

from pathlib import Path

import pytest

from lcm_distill.config import load_file, load_preset
from lcm_distill.core.errors import UserError
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.checkpoints import Checkpoints
from lcm_distill.training.continuation import Continuation, decided_in_distillation, with_steps
from tests.command_line import lcm, settings
from tests.conftest import SMALL
from tests.runs import borrow

CONSTANT = ["decay_fraction=0", "warmup_steps=3", "checkpoint_every=2", "batch_size=4"]
NAMES = {"distill": "student.safetensors", "pretrain": "teacher.safetensors"}


def begin(finished_run: RunFolder, root: Path, stage: str, steps: int, *more: str) -> Path:
    run = borrow(finished_run, root, "cache", "images")
    run.open(load_preset("shapes", SMALL))
    own = ["tuning.halvings=0"] if stage == "distill" else []
    chosen = [f"{stage}.{setting}" for setting in [f"steps={steps}", *CONSTANT, *own, *more]]
    result = lcm(stage, "--run", root, *settings(["engine.tensorboard=false", *chosen]))
    assert result.exit_code == 0, result.stderr
    return root


@pytest.mark.parametrize("stage", NAMES)
def test_a_continued_training_has_the_bits_of_one(finished_run, tmp_path, stage):
    whole = begin(finished_run, tmp_path / "whole", stage, 5)
    run = begin(finished_run, tmp_path / "run", stage, 3)
    result = lcm(stage, "--run", run, *settings([f"{stage}.steps=5"]))
    assert result.exit_code == 0, result.stderr
    assert (run / NAMES[stage]).read_bytes() == (whole / NAMES[stage]).read_bytes()
    assert getattr(load_file(run / "config.toml"), stage).steps == 5


def test_a_continuation_that_is_interrupted_resumes_with_the_plain_command(finished_run, tmp_path, monkeypatch):
    whole = begin(finished_run, tmp_path / "whole", "distill", 6)
    run = begin(finished_run, tmp_path / "run", "distill", 3)
    save = Checkpoints.save

    def stop_at_four(self, step, tensors, early):
        save(self, step, tensors, early)
        if step == 4:
            raise UserError("stopped")

    monkeypatch.setattr(Checkpoints, "save", stop_at_four)
    assert lcm("distill", "--run", run, *settings(["distill.steps=6"])).exit_code == 2
    monkeypatch.undo()
    refused = lcm("distill", "--run", run, *settings(["distill.steps=8"]))
    assert refused.exit_code == 2 and "4 of 6 steps are done: finish those first" in refused.stderr
    assert lcm("distill", "--run", run).exit_code == 0
    assert (run / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()


def test_a_stop_before_the_first_checkpoint_resumes_too(finished_run, tmp_path, monkeypatch):
    whole = begin(finished_run, tmp_path / "whole", "distill", 5)
    run = begin(finished_run, tmp_path / "run", "distill", 4)

    def stop(self, *_):
        raise UserError("stopped")

    monkeypatch.setattr(Checkpoints, "save", stop)
    assert lcm("distill", "--run", run, *settings(["distill.steps=5"])).exit_code == 2
    monkeypatch.undo()
    damaged = run / "distill/checkpoints/step-0000004/about.json"
    damaged.write_bytes(b"")
    with pytest.warns(UserWarning, match="resumes from the one before"):
        assert lcm("distill", "--run", run).exit_code == 0  # from step 2, of the finished training as well
    assert (run / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()


@pytest.mark.parametrize(
    "given, wanted, needed",
    [
        ("decay_fraction=0.5", 6, "distill.decay_fraction=0"),
        ("tuning.halvings=1", 6, "distill.tuning.halvings=0"),
        ("decay_fraction=0", 2, "choose another --run, or more steps"),
    ],
)
def test_what_the_total_decides_is_refused_and_nothing_changes(finished_run, tmp_path, given, wanted, needed):
    run = begin(finished_run, tmp_path / "run", "distill", 3, given)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = lcm("distill", "--run", run, *settings([f"distill.steps={wanted}"]))
    assert result.exit_code == 2 and needed in result.stderr and result.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_only_the_training_itself_may_change_its_steps(finished_run, tmp_path):
    run = begin(finished_run, tmp_path / "run", "distill", 3)
    result = lcm("evaluate", "--run", run, *settings(["distill.steps=6"]))
    assert result.exit_code == 2 and "was made with distill.steps = 3, not 6" in result.stderr
    assert load_file(run / "config.toml").distill.steps == 3


@pytest.mark.parametrize(
    "changes, differing",
    [
        ([], None),
        (["distill.matching.weight=1", "distill.matching.start=0"], None),
        (["distill.matching.weight=1", "distill.matching.start=0.1"], "distill.matching.start=0"),
        (["distill.response.weight=1", "distill.response.every=5"], None),  # 20 more steps
        (["distill.response.weight=1", "distill.response.every=3"], "distill.response.every=1"),
        (
            ["distill.decay_fraction=0.1", "distill.matching.weight=1", "distill.matching.start=0.1"],
            "distill.decay_fraction=0 and distill.matching.start=0",
        ),
        (["distill.adversarial.weight=1", "distill.adversarial.start=0"], None),
        (["distill.adversarial.weight=1", "distill.adversarial.start=0.1"], "distill.adversarial.start=0"),
        (  # the adversarial term begins at step 16 of 40 and 8 of 20; at 20 and 40 matching would not have begun
            [
                "distill.matching.weight=1",
                "distill.matching.start=0.5",
                "distill.adversarial.weight=1",
                "distill.adversarial.start=0.4",
            ],
            "distill.matching.start=0 and distill.adversarial.start=0",
        ),
        (  # all that the longer one would need, though one alone decides anything in these steps
            [
                "distill.decay_fraction=0.02",
                "distill.matching.weight=1",
                "distill.matching.start=0.99",
                "distill.adversarial.weight=1",
                "distill.adversarial.start=0.4",
            ],
            "distill.decay_fraction=0 and distill.matching.start=0 and distill.adversarial.start=0",
        ),
        (["distill.objective=scm"], "distill.scm.warmup=0"),
        (["distill.objective=scm", "distill.scm.warmup=0"], None),
        (["distill.objective=discrete"], None),
        (["distill.decay_fraction=0.02"], None),  # of 20: no step has a lower rate
        (["distill.decay_fraction=0.1"], "distill.decay_fraction=0"),
    ],
)
def test_what_depends_on_the_number_of_steps(changes, differing):
    constant = [
        "distill.decay_fraction=0",
        "distill.tuning.halvings=0",
        "distill.matching.weight=0",
        "distill.adversarial.weight=0",
        "distill.steps=40",
    ]
    config = load_preset("shapes", [*constant, *changes]).distill
    continuation = Continuation("distill", config, str, decided_in_distillation)
    if differing is None:
        assert continuation(20, "20", [10, 20])
        return
    with pytest.raises(UserError, match=f"continued needs {differing} from its start"):
        continuation(20, "20", [10, 20])


def test_a_training_that_is_not_the_same_is_not_continued():
    config = load_preset("shapes").distill
    assert not Continuation("distill", with_steps(config, 40), str)(20, "other", [10, 20])
    assert not Continuation("distill", with_steps(config, 40), str)(20, "30", [10, 20])  # stopped at 20 of 30
