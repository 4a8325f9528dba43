"""Damage to checkpoints, and what is left of one that is deleted."""

import pytest
import torch

from lcm_distill.core.errors import DataError
from lcm_distill.pipeline import atomic_writes
from lcm_distill.pipeline.atomic_writes import remove_orphans
from lcm_distill.training.checkpoints import Checkpoints
from tests.files import Crash, flip


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda lines: [], "SHA256SUMS does not list __0_0.bin"),
        (lambda lines: lines[:1], "SHA256SUMS does not list about.json"),
        (lambda lines: [*lines, b"half a line"], "line 4 of .*SHA256SUMS is not what was written"),
        (lambda lines: [lines[0].replace(b"  ", b" "), *lines[1:]], "line 1 of .*SHA256SUMS is not what was written"),
        (lambda lines: [b"\xff\xfe\n", *lines], "line 1 of .*SHA256SUMS is not what was written"),
        (lambda lines: [*lines, b"0" * 64 + b"  ../step-0000010\n"], "line 4 of .*SHA256SUMS is not what was written"),
        (lambda lines: [*lines, b"0" * 64 + b"  absent\n"], "absent is missing"),
    ],
)
def test_a_list_of_hashes_that_is_not_whole_is_damage(tmp_path, change, how):
    checkpoints, value = Checkpoints(tmp_path, "print"), torch.tensor(0)
    for step in (10, 20):
        checkpoints.save(step, {"value": torch.tensor(step)})
    listed = tmp_path / "step-0000020/SHA256SUMS"
    listed.write_bytes(b"".join(change(listed.read_bytes().splitlines(keepends=True))))
    with pytest.warns(UserWarning, match=f"{how}: training resumes from the one before"):
        assert checkpoints.load_latest(lambda: {"value": value}) == 10


def test_a_checkpoint_with_a_foreign_file_and_folders_of_other_names_are_not_taken(tmp_path):
    checkpoints, value = Checkpoints(tmp_path, "print"), torch.tensor(0)
    for step in (10, 20):
        checkpoints.save(step, {"value": torch.tensor(step)})
    (tmp_path / "step-0000020/.metadata").touch()
    (tmp_path / "step-0000030.copy").mkdir()
    assert checkpoints.steps() == [10, 20]
    with pytest.warns(UserWarning, match=r"does not list \.metadata"):
        assert checkpoints.load_latest(lambda: {"value": value}) == 10


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(tmp_path):
    """Its files are all as they were written, so its hashes say nothing."""
    checkpoints, value = Checkpoints(tmp_path, "print"), torch.tensor(0)
    for step in (10, 20):
        checkpoints.save(step, {"value": torch.tensor(step)})
    (tmp_path / "step-0000020").rename(tmp_path / "step-0000040")
    with pytest.warns(UserWarning, match="step-0000040 holds the checkpoint of step 20: training resumes from the one"):
        assert checkpoints.load_latest(lambda: {"value": value}) == 10
    assert value == 10
    (tmp_path / "step-0000010").rename(tmp_path / "step-0000020")
    with pytest.warns(UserWarning, match="holds the checkpoint of step"), pytest.raises(DataError, match="every"):
        checkpoints.load_latest(lambda: {"value": value})


def test_a_new_checkpoint_outlives_a_damaged_one_of_a_later_step(tmp_path):
    checkpoints, value = Checkpoints(tmp_path, "print"), torch.tensor(0)
    for step in (10, 30):
        checkpoints.save(step, {"value": torch.tensor(step)})
    flip(tmp_path / "step-0000030/index.json")
    again = Checkpoints(tmp_path, "print", keep=1)
    with pytest.warns(UserWarning, match="resumes from the one before"):
        assert again.load_latest(lambda: {"value": value}) == 10
    again.save(20, {"value": torch.tensor(20)})
    assert again.load_latest(lambda: {"value": value}) == 20 and value == 20


def test_values_that_are_not_finite_are_not_resumed_from(tmp_path):
    checkpoints, value = Checkpoints(tmp_path, "print"), torch.tensor(0.0)
    checkpoints.save(10, {"value": torch.tensor(10.0)})
    checkpoints.save(20, {"value": torch.tensor(torch.nan)})
    with pytest.warns(UserWarning, match="step-0000020 holds values of value that are not finite: training resumes"):
        assert checkpoints.load_latest(lambda: {"value": value}) == 10
    assert value == 10


@pytest.mark.parametrize("kept", range(1, 5))
def test_a_checkpoint_that_is_deleted_is_whole_or_an_orphan(tmp_path, monkeypatch, kept):
    """Killed after so many of its files are gone."""
    checkpoints = Checkpoints(tmp_path, "print", keep=1)
    checkpoints.save(10, {"value": torch.tensor(10)})

    def interrupted(path, ignore_errors=False):
        if path.exists():
            for file in sorted(path.iterdir())[kept:]:
                file.unlink()
            raise Crash

    monkeypatch.setattr(atomic_writes.shutil, "rmtree", interrupted)
    with pytest.raises(Crash):
        checkpoints.save(20, {"value": torch.tensor(20)})
    monkeypatch.undo()
    assert checkpoints.steps() == [20]
    assert remove_orphans(tmp_path) == 1 and [path.name for path in tmp_path.iterdir()] == ["step-0000020"]
