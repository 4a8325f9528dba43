"""What is committed is whole; what is not leaves no trace that counts."""

import errno
import os
import shutil
from itertools import count
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import torch

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.pipeline import atomic_writes
from lcm_distill.pipeline.atomic_writes import commit_bytes, commit_file, commit_folder, remove_orphans
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.manifest import Manifest, part_name
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Task
from lcm_distill.training.checkpoints import Checkpoints
from tests.files import Crash, flip

COLUMNS = pa.schema([("row", pa.int64()), ("status", pa.string())])


@pytest.fixture
def order(monkeypatch) -> list[str]:
    """Names of the files and folders that are synced, and `to NAME` where one is renamed, in order."""
    calls, replace = list[str](), os.replace

    def synced(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        calls.append("unfinished" if name.startswith(".writing-") else name)

    def renamed(source: Path, target: Path) -> None:
        calls.append(f"to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return calls


def test_what_is_renamed_is_on_the_disk_and_then_its_new_name(order, tmp_path):
    """Power may fail at any moment."""
    commit_bytes(tmp_path / "a", b"new")
    assert order == ["unfinished", "to a", tmp_path.name]
    order.clear()
    commit_folder(tmp_path / "b", lambda folder: (folder / "file").write_bytes(b"content"))
    assert order == ["file", "unfinished", "to b", tmp_path.name]


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


def test_files_of_a_folder_have_the_rights_of_new_files(tmp_path):
    """Also those that a library makes for its owner alone; a program stays one."""

    def write(folder: Path) -> None:
        for name, mode in (("alone", 0o600), ("program", 0o700)):
            (folder / name).touch()
            (folder / name).chmod(mode)

    before = os.umask(0o027)
    try:
        commit_folder(tmp_path / "d", write)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "d").iterdir()}
    assert modes == {"alone": 0o640, "program": 0o740}


def committed_folder(path: Path, content: str) -> None:
    commit_folder(path, lambda folder: (folder / "content").write_text(content))


class Steps:
    """Calls of the file system, of which one raises `Crash`: before or after it is made."""

    def __init__(self, crash_at: int) -> None:
        self.crash_at, self.passed = crash_at, 0

    def wrap(self, step):
        def call(*arguments, **options):
            self._pass()
            result = step(*arguments, **options)
            self._pass()
            return result

        return call

    def _pass(self) -> None:
        self.passed += 1
        if self.passed > self.crash_at:
            raise Crash


@pytest.mark.parametrize("exchanges", [True, False], ids=["in one step", "by two renames"])
def test_a_crash_while_a_folder_is_replaced_leaves_one_of_the_two(tmp_path, monkeypatch, exchanges):
    folder, contents = tmp_path / "d", []
    exchange = atomic_writes._exchange if exchanges else lambda one, other: False
    for crash_at in count():
        committed_folder(folder, "old")
        steps = Steps(crash_at)
        with monkeypatch.context() as patch:
            patch.setattr(atomic_writes.os, "replace", steps.wrap(os.replace))
            patch.setattr(atomic_writes, "_exchange", steps.wrap(exchange))
            patch.setattr(atomic_writes.shutil, "rmtree", steps.wrap(shutil.rmtree))
            try:
                committed_folder(folder, "new")
                break
            except Crash:
                pass
        remove_orphans(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["d"]
        contents.append((folder / "content").read_text())
    assert contents == sorted(contents, reverse=True) and set(contents) == {"old", "new"}
    assert (folder / "content").read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    commit_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr(atomic_writes.os, "writev", no_space)
    with pytest.raises(OSError, match="No space left on device") as caught:
        LocalStorage(tmp_path).put("a", [b"new"])
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_an_error_that_names_a_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        commit_file(tmp_path / "a", lambda path: (tmp_path / "source").read_bytes())
    assert caught.value.filename == str(tmp_path / "source")


def test_a_misspelt_column_is_refused_and_nothing_committed(tmp_path):
    manifest = Manifest(LocalStorage(tmp_path), COLUMNS)
    with pytest.raises(ValueError, match=r"row of t has the key 'stauts', which is not one of the columns .* status"):
        manifest.commit(Task("t", "print"), [{"row": 1, "status": "ok"}, {"row": 2, "stauts": "ok"}], None)
    with pytest.raises(TypeError):
        manifest.commit(Task("t", "print"), [{"row": 1, "status": 7}], None)
    assert manifest.task_names() == []


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
    assert duckdb.execute(f"SELECT row FROM read_parquet('{tmp_path}/manifest/*.parquet')").fetchall() == [(1,)]


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


@pytest.mark.parametrize(
    ("name", "break_it", "how"),
    [
        ("__0_0.bin", flip, "is not what was written"),
        ("__0_0.bin", lambda path: os.truncate(path, path.stat().st_size - 1), "is not what was written"),
        ("index.json", flip, "is not what was written"),
        ("about.json", Path.unlink, "is missing"),
        ("SHA256SUMS", Path.unlink, "is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, name, break_it, how):
    checkpoints, value = Checkpoints(tmp_path, "print"), torch.tensor(0)
    for step in (10, 20):
        checkpoints.save(step, {"value": torch.tensor(step)})
    break_it(tmp_path / "step-0000020" / name)
    with pytest.warns(UserWarning, match=f"step-0000020/{name} {how}: training resumes from the one before"):
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
