"""Disk and object stores keep the same promises."""

import pyarrow as pa
import pytest

from lcm_distill.core.errors import StorageError, UserError
from lcm_distill.pipeline.compaction import compact
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.manifest import Manifest
from lcm_distill.pipeline.object_store import FEW, RemoteStorage
from lcm_distill.pipeline.storage import LocalStorage, WrittenFile
from tests.pipeline.workload import COLUMNS, TASKS, fail_at, work_in

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of "abc", from FIPS 180-2."""


@pytest.fixture(params=["disk", "s3", "google"])
def storage(request, tmp_path):
    if request.param == "disk":
        return LocalStorage(tmp_path / "storage")
    bucket = request.getfixturevalue({"s3": "bucket", "google": "google_bucket"}[request.param])
    return RemoteStorage(f"{bucket}/{tmp_path.name}/deep")


def test_what_is_put_is_there(storage):
    assert storage.put("a/b", [b"a", memoryview(b"bc")]) == WrittenFile("a/b", 3, ABC)
    assert storage.read("a/b") == b"abc"
    storage.put("a/b", [b"again"])
    storage.put("a/a", [b""])
    storage.put("a/deeper/c", [b"c"])
    assert {name: stat.size for name, stat in storage.listing("a").items()} == {"a/a": 0, "a/b": 5}
    assert list(storage.listing("a")) == ["a/a", "a/b"] and storage.listing("nowhere") == {}
    assert storage.listing("a")["a/b"].modified > 1.7e9
    wanted = ["a/b", "a/deeper/c", "gone/d"]
    assert storage.sizes(wanted) == {"a/b": 5, "a/deeper/c": 1}
    assert storage.sizes([*wanted, *(f"gone/{number}" for number in range(FEW))]) == {"a/b": 5, "a/deeper/c": 1}
    storage.remove("a/b")
    storage.remove("a/b")
    assert list(storage.listing("a")) == ["a/a"]
    with pytest.raises(FileNotFoundError):
        storage.read("a/b")


def test_a_manifest_lives_in_any(storage):
    manifest = Manifest(storage, COLUMNS)
    for number, task in enumerate(TASKS[:5]):
        manifest.commit(task, [{"row": number, "status": "ok"}], storage.put(f"file{number}", [bytes(number + 1)]))
    assert manifest.done(TASKS).keys() == {task.name for task in TASKS[:5]}
    storage.put("file1", [b""])
    storage.remove("file2")
    assert manifest.done(TASKS).keys() == {"t00", "t03", "t04"}
    assert manifest.read().select(["task", "row"]).to_pylist()[4] == {"task": "t04", "row": 4}
    manifest.drop(["t00", "unknown"])
    assert manifest.task_names() == ["t01", "t02", "t03", "t04"]


def test_work_goes_on_in_any(storage, tmp_path):
    fail_at(tmp_path, TASKS[7], "bug")
    manifest = Manifest(storage, pa.schema(COLUMNS))
    # The files of this work lie elsewhere; what is committed is the matter here.
    work = _without_files(work_in(tmp_path))
    with pytest.raises(RuntimeError):
        list(Serial().run(TASKS, manifest, work))
    assert len(manifest.done(TASKS)) == 7
    assert sum(already for _, already, _ in Serial().run(TASKS, manifest, work)) == 7
    assert len(manifest.done(TASKS)) == 20


def _without_files(open_work):
    def open_it(device):
        return lambda tasks: ((task, rows, None) for task, rows, _ in open_work(device)(tasks))

    return open_it


def test_an_object_store_says_what_is_wrong(bucket, tmp_path):
    with pytest.raises(StorageError, match=r"^s3://no-such-bucket/x/a: there is no such bucket"):
        RemoteStorage("s3://no-such-bucket/x").put("a", [b""])
    with pytest.raises(UserError, match="cannot be opened"):
        RemoteStorage("carrier-pigeon://loft").read("a")
    with pytest.raises(UserError, match="compact a copy"):
        list(compact(Manifest(RemoteStorage(bucket), COLUMNS)))
