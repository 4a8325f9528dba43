"""The recipe that ships, with distribution matching and the adversarial term, trained for a few steps."""

from itertools import combinations

import torch

from lcm_distill.config import Config, load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.training.student import prepare
from tests.conftest import SMALL
from tests.runs import borrow

SIZES = [setting for setting in SMALL if not setting.startswith(("distill.matching", "distill.adversarial"))]
RECIPE = [*SIZES, "distill.steps=4", "distill.batch_size=4", "distill.checkpoint_every=1", "engine.tensorboard=false"]


def tensors_after(config: Config, run: RunFolder, *stops: int) -> dict[str, torch.Tensor]:
    """The last checkpoint of a training that is stopped after each of `stops` steps and resumed."""
    for stop in stops:
        for report in prepare(config, run).run():
            if report.done == stop:
                break
    trainer = prepare(config, run)
    list(trainer.run())
    return {name: tensor.clone() for name, tensor in trainer.tensors().items()}


def test_the_recipe_resumes_to_the_same_bits(finished_run, tmp_path):
    config = load_preset("shapes", RECIPE)
    for term in (config.distill.matching, config.distill.adversarial):
        assert term.weight > 0 and term.start * config.distill.steps < 2  # it is trained
    runs = [borrow(finished_run, tmp_path / name, "cache") for name in ("unbroken", "resumed")]
    initial = {name: tensor.clone() for name, tensor in prepare(config, runs[0]).modules["critic"].state_dict().items()}
    unbroken, resumed = tensors_after(config, runs[0]), tensors_after(config, runs[1], 1, 3)
    assert unbroken.keys() == resumed.keys()
    assert {name.split(".")[0] for name in unbroken} == {
        "model", "average", "target", "critic", "discriminator", "optimiser",
    }  # fmt: skip
    assert [name for name in unbroken if not torch.equal(unbroken[name], resumed[name])] == []
    assert any(not torch.equal(unbroken[f"critic.{name}"], tensor) for name, tensor in initial.items())


def test_each_term_changes_the_student(finished_run, tmp_path):
    students = []
    for without in ("", "distill.matching.weight=0", "distill.adversarial.weight=0"):
        config = load_preset("shapes", [*RECIPE, *filter(None, [without])])
        run = borrow(finished_run, tmp_path / f"run{without}", "cache")
        tensors = tensors_after(config, run)
        students.append({name: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    for one, other in combinations(students, 2):
        assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())
