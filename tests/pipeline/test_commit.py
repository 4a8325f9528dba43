"""What is committed is whole; what is not leaves no trace that counts."""

import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import torch

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.pipeline.atomic import commit_bytes, commit_file, commit_folder, remove_orphans
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.manifest import Manifest, part_name
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Task
from lcm_distill.training.checkpoints import Checkpoints

COLUMNS = pa.schema([("row", pa.int64()), ("status", pa.string())])


class Crash(Exception):
    pass


def test_interrupted_write_keeps_the_old_file(tmp_path):
    commit_bytes(tmp_path / "a", b"old")

    def crash(path):
        path.write_bytes(b"half")
        raise Crash

    with pytest.raises(Crash):
        commit_file(tmp_path / "a", crash)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert remove_orphans(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_folder_is_replaced_whole(tmp_path):
    commit_folder(tmp_path / "d", lambda folder: (folder / "one").write_text("1"))
    commit_folder(tmp_path / "d", lambda folder: (folder / "two").write_text("2"))
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["two"]


def tasks_and_log(root, crash_at=None):
    tasks = [Task(f"t{number}", f"print{number}", {"number": number}) for number in range(4)]
    executed = []

    def execute(pending):
        for task in pending:
            number = task.inputs["number"]
            if number == crash_at:
                raise Crash
            executed.append(number)
            yield task, [{"row": number, "status": "ok"}], LocalStorage(root).put(f"file{number}", [bytes(number + 1)])

    return tasks, execute, executed


def test_only_uncommitted_tasks_run_again(tmp_path):
    manifest = Manifest(LocalStorage(tmp_path), COLUMNS)
    tasks, execute, _ = tasks_and_log(tmp_path, crash_at=2)
    with pytest.raises(Crash):
        list(Serial().run(tasks, manifest, lambda device: execute))
    tasks, execute, executed = tasks_and_log(tmp_path)
    outcome = [(task.name, done) for task, done, _ in Serial().run(tasks, manifest, lambda device: execute)]
    assert executed == [2, 3]
    assert outcome == [("t0", True), ("t1", True), ("t2", False), ("t3", False)]
    assert manifest.read(tasks)["row"].to_pylist() == [0, 1, 2, 3]


def test_task_counts_as_done_only_with_its_fingerprint_and_file(tmp_path):
    manifest = Manifest(LocalStorage(tmp_path), COLUMNS)
    tasks, execute, _ = tasks_and_log(tmp_path)
    list(Serial().run(tasks, manifest, lambda device: execute))
    assert manifest.is_done(tasks[1])
    assert not manifest.is_done(Task("t1", "another print"))
    (tmp_path / "file1").write_bytes(b"")
    (tmp_path / "file2").unlink()
    assert [manifest.is_done(task) for task in tasks] == [True, False, False, True]


def test_task_without_rows_is_done(tmp_path):
    manifest, task = Manifest(LocalStorage(tmp_path), COLUMNS), Task("empty", "print")
    manifest.commit(task, [], None)
    assert manifest.is_done(task) and not manifest.is_done(Task("empty", "other"))


def test_a_part_being_written_is_no_part_to_duckdb(tmp_path):
    manifest, task = Manifest(LocalStorage(tmp_path), COLUMNS), Task("t", "print")
    manifest.commit(task, [{"row": 1}], None)

    def crash(path):
        path.write_bytes((tmp_path / part_name("t")).read_bytes())
        raise Crash

    with pytest.raises(Crash):
        commit_file(tmp_path / part_name("u"), crash)
    assert len(list((tmp_path / "manifest").iterdir())) == 2
    assert duckdb.sql(f"SELECT row FROM read_parquet('{tmp_path}/manifest/*.parquet')").fetchall() == [(1,)]


def test_checkpoints_keep_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path, "print", keep=2)
    assert checkpoints.load_latest(lambda: pytest.fail("there is nothing to fill")) is None
    for step in (10, 20, 30):
        checkpoints.save(step, {"value": torch.tensor(step), "other": torch.arange(step)})
    assert checkpoints.steps() == [20, 30]
    value = torch.tensor(0)
    assert checkpoints.load_latest(lambda: {"value": value}) == 30 and value == 30
    checkpoints.load(20, {"value": value})
    assert value == 20
    with pytest.raises(UserError, match="other settings"):
        Checkpoints(tmp_path, "another print").load_latest(dict)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "break_it", "how"),
    [
        ("__0_0.distcp", flip, "is not what was written"),
        ("__0_0.distcp", lambda path: os.truncate(path, path.stat().st_size - 1), "is not what was written"),
        (".metadata", flip, "is not what was written"),
        ("about.json", Path.unlink, "is missing"),
        ("SHA256SUMS", Path.unlink, "is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, name, break_it, how):
    checkpoints, value = Checkpoints(tmp_path, "print"), torch.tensor(0)
    for step in (10, 20):
        checkpoints.save(step, {"value": torch.tensor(step)})
    break_it(tmp_path / "step-0000020" / name)
    with pytest.warns(UserWarning, match=f"step-0000020/{name} {how}: training goes on from the one before"):
        assert checkpoints.load_latest(lambda: {"value": value}) == 10
    assert value == 10
    break_it(tmp_path / "step-0000010" / name)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(DataError, match=r"every checkpoint in .* is damaged"),
    ):
        checkpoints.load_latest(lambda: {"value": value})
    checkpoints.save(20, {"value": torch.tensor(21)})
    assert checkpoints.load_latest(lambda: {"value": value}) == 20 and value == 21
