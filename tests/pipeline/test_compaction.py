"""Compacted or not, and killed anywhere on the way, a manifest says the same and says it once."""

import shutil
import threading

import duckdb
import pyarrow as pa
import pytest

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.pipeline import atomic_writes, compaction
from lcm_distill.pipeline.compaction import compact
from lcm_distill.pipeline.lock import owned
from lcm_distill.pipeline.manifest import Manifest, part_name
from lcm_distill.pipeline.storage import LocalStorage
from lcm_distill.pipeline.task import Task
from tests.files import Crash

COLUMNS = pa.schema([("row", pa.int64()), ("status", pa.string())])
TASKS = [Task(f"t{number}", f"print{number}") for number in range(7)]
EMPTY = TASKS[3]
ROWS = [(task.name, row) for number, task in enumerate(TASKS) if task is not EMPTY for row in (number, 100 + number)]


def committed(root, tasks=TASKS) -> Manifest:
    """A manifest in which every task but `EMPTY` has two rows."""
    manifest = Manifest(LocalStorage(root), COLUMNS)
    for task in tasks:
        commit(manifest, task)
    return manifest


def commit(manifest, task):
    number = TASKS.index(task)
    rows = [] if task is EMPTY else [{"row": row, "status": "ok"} for row in (number, 100 + number)]
    manifest.drop([task.name])  # as executors do before work that has no valid commit
    manifest.commit(task, rows, manifest.storage.put(f"file{number}", [bytes(number + 1)]))


def plain(manifest) -> list[tuple[str, int]]:
    """What anyone's DuckDB sees."""
    with duckdb.connect() as connection:
        files = f"read_parquet('{manifest.storage.root}/manifest/*.parquet', union_by_name=true)"
        return connection.sql(f"SELECT task, row FROM {files} ORDER BY ALL").fetchall()


def assert_whole(manifest):
    assert plain(manifest) == ROWS
    table = manifest.read()
    assert list(zip(table["task"].to_pylist(), table["row"].to_pylist(), strict=True)) == ROWS
    assert manifest.done(TASKS).keys() == {task.name for task in TASKS}
    assert manifest.task_names() == [task.name for task in TASKS]


def names(manifest) -> list[str]:
    return sorted(path.name for path in (manifest.storage.root / "manifest").iterdir())


def test_many_parts_become_few_files(tmp_path):
    manifest = committed(tmp_path)
    last = list(compact(manifest, tasks_per_file=3))[-1]
    assert (last.done, last.total, last.counts) == (7, 7, {"files": 3})
    assert len(names(manifest)) == 3 and all(name.startswith("merged.") for name in names(manifest))
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert_whole(manifest)
    assert manifest.read([TASKS[4], TASKS[0]])["row"].to_pylist() == [0, 100, 4, 104]
    assert manifest.is_done(EMPTY) and not manifest.is_done(Task(EMPTY.name, "other"))
    assert not manifest.is_done(Task("unknown", "print"))


def test_a_compact_manifest_is_left_alone(tmp_path):
    manifest = committed(tmp_path)
    list(compact(manifest, tasks_per_file=3))
    before = names(manifest)
    assert list(compact(manifest, tasks_per_file=3)) == [] and names(manifest) == before


def test_later_parts_are_merged_with_the_files_there_are(tmp_path):
    manifest = committed(tmp_path, TASKS[:4])
    list(compact(manifest, tasks_per_file=4))
    for task in TASKS[4:]:
        commit(manifest, task)
    assert_whole(manifest)
    list(compact(manifest, tasks_per_file=4))
    assert len(names(manifest)) == 2
    assert_whole(manifest)


def test_a_merged_task_done_again_counts_once(tmp_path):
    manifest = committed(tmp_path)
    list(compact(manifest, tasks_per_file=4))
    (tmp_path / "file5").unlink()
    assert manifest.done(TASKS).keys() == {task.name for task in TASKS} - {"t5"}
    commit(manifest, TASKS[5])
    assert "t5.parquet" in names(manifest)
    assert_whole(manifest)


def test_drop_takes_back_merged_and_loose_commits(tmp_path):
    manifest = committed(tmp_path, TASKS[:6])
    list(compact(manifest, tasks_per_file=3))
    commit(manifest, TASKS[6])
    manifest.drop(["t0", "t1", "t2", "t4", "t6"])
    assert manifest.task_names() == ["t3", "t5"] and len(names(manifest)) == 1
    assert plain(manifest) == [("t5", 5), ("t5", 105)]


MOMENTS = [
    (compaction, "encode_part"),
    (compaction, "exchange_folders"),
    (compaction, "_move_new_parts"),
    (shutil, "rmtree"),
    (atomic_writes.os, "replace"),
    (atomic_writes, "_fsync"),
]


@pytest.mark.parametrize(("where", "step"), MOMENTS, ids=[step for _, step in MOMENTS])
@pytest.mark.parametrize("merged_before", [False, True])
def test_killed_before_and_after_every_step(tmp_path, monkeypatch, where, step, merged_before):
    manifest = committed(tmp_path, TASKS[:5])
    if merged_before:
        list(compact(manifest, tasks_per_file=3))
    for task in TASKS[5:]:
        commit(manifest, task)
    kills = 0
    while kill_at(monkeypatch, where, step, kills, lambda: list(compact(manifest, tasks_per_file=3))):
        kills += 1
        assert_whole(manifest)
        if len(names(manifest)) == 3:  # compacted already: begin again from loose parts
            for task in TASKS[5:]:
                commit(manifest, task)
    assert kills >= 2
    assert_whole(manifest)
    assert len(names(manifest)) == 3 and not list(tmp_path.glob(".*"))


def kill_at(monkeypatch, where, step, moment, work) -> bool:
    """Kill `work` at its `moment`-th one, counting before and after each call of `step`; False if it has fewer."""
    real, passed = getattr(where, step), 0

    def pass_moment():
        nonlocal passed
        passed += 1
        if passed > moment:
            raise Crash

    def killing(*arguments, **options):
        pass_moment()
        result = real(*arguments, **options)
        pass_moment()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(where, step, killing)
        try:
            work()
        except Crash:
            return True
    return False


def test_killed_while_a_merged_task_is_committed_again(tmp_path, monkeypatch):
    """A task that is done again may be absent for a moment, and is never there twice."""
    manifest = committed(tmp_path)
    list(compact(manifest, tasks_per_file=7))
    others = [row for row in ROWS if row[0] != "t5"]
    for moment in range(4):
        assert kill_at(monkeypatch, atomic_writes.os, "replace", moment, lambda: commit(manifest, TASKS[5]))
        assert plain(manifest) in (ROWS, others)
    commit(manifest, TASKS[5])
    assert_whole(manifest)


def test_parts_committed_meanwhile_are_kept(tmp_path, monkeypatch):
    """One new task, and one done again because its file is gone, between merging and the exchange."""
    manifest = committed(tmp_path, TASKS[:6])
    real = compaction.exchange_folders

    def exchange(building, folder):
        commit(manifest, TASKS[6])
        (tmp_path / "file2").unlink()
        commit(manifest, TASKS[2])
        real(building, folder)

    monkeypatch.setattr(compaction, "exchange_folders", exchange)
    list(compact(manifest, tasks_per_file=3))
    assert {"t2.parquet", "t6.parquet"} <= set(names(manifest))
    assert_whole(manifest)


def test_a_reader_meanwhile_sees_everything_once_or_an_error(tmp_path):
    manifest, stop, seen = committed(tmp_path), threading.Event(), []

    def read():
        while not stop.is_set():
            try:
                seen.append(plain(manifest))
            except duckdb.Error:
                seen.append("asks again")

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(25):
        list(compact(manifest, tasks_per_file=2))
        loose = committed(tmp_path / "loose")
        atomic_writes.exchange_folders(
            tmp_path / "loose" / "manifest", tmp_path / "manifest"
        )  # and back to loose parts
        assert isinstance(loose.storage, LocalStorage)
        shutil.rmtree(loose.storage.root)
    stop.set()
    reader.join()
    assert ROWS in seen and all(rows in (ROWS, "asks again") for rows in seen)


def test_what_cannot_be_compacted_stays_as_it_is(tmp_path, monkeypatch):
    manifest = committed(tmp_path)
    before = names(manifest)
    other = owned(tmp_path, ["compact"], "cache compact", "")
    with other, pytest.raises(UserError, match="compact belongs to `lcm cache compact`"):
        list(compact(manifest))
    with monkeypatch.context() as patch:
        patch.setattr(atomic_writes, "_RENAME_EXCHANGE", 1 << 20)  # a flag that no file system knows
        with pytest.raises(UserError, match="cannot exchange folders"):
            list(compact(manifest))
    assert names(manifest) == before
    (tmp_path / part_name("t1")).write_bytes(b"not Parquet")
    with pytest.raises(DataError, match=r"t1\.parquet is damaged"):
        list(compact(manifest))
    assert names(manifest) == before


def test_damage_in_a_page_or_footer_is_named(tmp_path):
    manifest = committed(tmp_path)
    part = tmp_path / part_name("t2")
    sound = part.read_bytes()
    for place in range(4, len(sound), 97):
        content = bytearray(sound)
        content[place] ^= 0xFF
        part.write_bytes(content)
        try:
            rows = [row for row in manifest.read().to_pylist() if row["task"] == "t2"]
        except DataError as error:
            assert "t2.parquet is damaged" in str(error)
        else:
            assert [row["row"] for row in rows] == [2, 102]


def test_a_column_whose_name_is_damaged_does_not_read_as_absent(tmp_path):
    manifest = committed(tmp_path)
    part = tmp_path / part_name("t2")
    part.write_bytes(part.read_bytes().replace(b"status", b"stauts"))
    with pytest.raises(DataError, match=r"t2\.parquet is damaged"):
        manifest.read()
