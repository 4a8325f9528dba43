"""One owner a stage: on a disk with locks, with locks of one machine alone, and with none."""

import errno
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lcm_distill.core.errors import UserError, WorkError
from lcm_distill.pipeline import lock
from lcm_distill.pipeline.executors.ranks import launched_ranks
from lcm_distill.pipeline.lock import await_owner, owned
from lcm_distill.pipeline.lock_owner import Owner, read_owner

REMEDY = "or choose another --run"


@pytest.fixture
def quick(monkeypatch):
    """Counters and looks in hundredths of a second."""
    for name, seconds in {"BEAT_SECONDS": 0.02, "WATCH_SECONDS": 0.3, "SETTLE_SECONDS": 0.05}.items():
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch, quick):
    """A file system without locks."""

    def refuse(descriptor, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def elsewhere(path: Path, beat: int = 0, **changed: object) -> Owner:
    """The file of an owner on another machine."""
    owner = replace(Owner("distill", host="far", machine="far 1", process=7, token="other", beat=beat), **changed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(owner.to_json())
    return owner


def in_a_child(work: Callable[[], object]) -> int:
    """The id of a process that does `work` and then waits to be killed."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        work()
        os.write(told, b".")
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    return child


def test_the_second_is_told_who_the_first_is_and_nothing_is_left(tmp_path):
    run = tmp_path / "runs" / "new"
    with owned(run, ["precompute", "distill"], "run", REMEDY):
        with pytest.raises(UserError) as refused, owned(run, ["distill", "evaluate"], "distill", REMEDY):
            pytest.fail("owned twice")
        with owned(run, ["evaluate"], "evaluate", REMEDY):
            pass
        found = read_owner(run / "locks" / "distill")
    assert found is not None
    assert str(refused.value) == (
        f"{run}: its stage distill belongs to `lcm run` (process {os.getpid()} on {found.host}, since {found.since}): "
        "wait until it has ended, or choose another --run"
    )
    assert not (tmp_path / "runs").exists()


def test_what_was_made_meanwhile_stays(tmp_path):
    with owned(tmp_path / "run", ["distill"], "distill", REMEDY):
        (tmp_path / "run" / "student").write_text("trained")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["student"]


def kill_an_owner(folder):
    """Kill the owner of a stage, after seeing that nobody else owns it meanwhile."""
    child = in_a_child(owned(folder, ["distill"], "distill", REMEDY).__enter__)
    with pytest.raises(UserError, match=f"process {child} "), owned(folder, ["distill"], "distill", REMEDY):
        pytest.fail("owned twice")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_killed_owner_has_ended(tmp_path):
    kill_an_owner(tmp_path)
    assert (tmp_path / "locks" / "distill").exists()
    with owned(tmp_path, ["distill"], "distill", REMEDY):
        pass
    assert not (tmp_path / "locks").exists()


def test_what_killed_owners_of_other_stages_left_is_removed(tmp_path):
    """The one that began the run owned all stages; the one that resumes owns its own."""
    child = in_a_child(owned(tmp_path, ["precompute", "distill", "evaluate"], "precompute", REMEDY).__enter__)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with owned(tmp_path, ["precompute"], "precompute", REMEDY):
        assert [path.name for path in (tmp_path / "locks").iterdir()] == ["precompute"]
    assert not (tmp_path / "locks").exists()


def test_one_of_many_threads_owns(tmp_path):
    """Each takes the lock, removes its file again, and none is ever inside beside another."""
    inside, most, refused = [], [], []

    def compete():
        for _ in range(30):
            try:
                with owned(tmp_path / "run", ["a", "b"], "distill", REMEDY):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except UserError:
                refused.append(1)

    threads = [threading.Thread(target=compete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) + len(refused) == 120 and set(most) == {1}
    # Who takes the folder of another one for the user's leaves it there, empty.
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


def test_an_owner_of_another_machine_is_alive_if_its_counter_changes(tmp_path, quick):
    """Where locks reach one machine alone, the free lock of another machine's owner means nothing."""
    path, stop = tmp_path / "locks" / "distill", threading.Event()
    owner = elsewhere(path)

    def beat():
        while not stop.wait(0.02):
            elsewhere(path, beat=time.monotonic_ns(), since=owner.since)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(UserError, match="process 7 on far"), owned(tmp_path, ["distill"], "distill", REMEDY):
        pytest.fail("owned twice")
    stop.set()
    thread.join()
    with owned(tmp_path, ["distill"], "distill", REMEDY):  # it stands still: dead, whatever its clock said
        found = read_owner(path)
        assert found is not None and found.process == os.getpid()


def test_an_owner_that_has_ended_is_not_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_is_alive", lambda *_: pytest.fail("watched"))
    elsewhere(tmp_path / "locks" / "distill", ended=True)
    with owned(tmp_path, ["distill"], "distill", REMEDY):
        pass


def test_without_locks_counters_tell(tmp_path, no_locks):
    kill_an_owner(tmp_path)
    with owned(tmp_path, ["distill"], "distill", REMEDY):
        pass
    assert not (tmp_path / "locks").exists()


def test_without_locks_the_last_claim_of_several_counts(tmp_path, no_locks, monkeypatch):
    """Another process that found the stage free as well has written its name after this one."""
    path = tmp_path / "locks" / "distill"
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: elsewhere(path))
    with pytest.raises(UserError, match="process 7 on far"), owned(tmp_path, ["distill"], "distill", REMEDY):
        pytest.fail("owned twice")
    assert path.exists()  # the other's


def test_without_locks_an_owner_that_was_taken_for_dead_ends(tmp_path, no_locks, monkeypatch):
    """It was suspended, and another owns the stage by now."""
    ended = threading.Event()
    monkeypatch.setattr(lock.os, "kill", lambda process, number: number == signal.SIGKILL and ended.set())
    with owned(tmp_path, ["distill"], "distill", REMEDY):
        elsewhere(tmp_path / "locks" / "distill")
        assert ended.wait(10)


def test_other_errors_of_locks_are_errors(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output error"), owned(tmp_path, ["distill"], "distill", REMEDY):
        pytest.fail("owned")


KEYS = [name for name in asdict(Owner("distill")) if name != "command"]


@pytest.mark.parametrize("missing", [*([key] for key in KEYS), KEYS, ["command", *KEYS]])
def test_what_a_lock_file_lacks_is_no_sign_of_life(tmp_path, quick, missing):
    """One of another version, whose counter stands still if it has one."""
    path = tmp_path / "locks" / "distill"
    stored = {key: value for key, value in asdict(elsewhere(path)).items() if key not in missing}
    path.write_text(json.dumps(stored | {"of a later version": 1}))
    assert read_owner(path) == read_owner(path)
    with owned(tmp_path, ["distill"], "distill", REMEDY):
        found = read_owner(path)
        assert found is not None and found.process == os.getpid()
    assert not (tmp_path / "locks").exists()


def test_a_lock_file_with_other_keys_is_told_by_its_counter(tmp_path, quick):
    path, stop = tmp_path / "locks" / "distill", threading.Event()
    path.parent.mkdir()
    path.write_text('{"beat": 1}')

    def beat():
        while not stop.wait(0.02):
            with path.open("r+") as file:
                file.write(json.dumps({"beat": time.monotonic_ns(), "of a later version": 1}))

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(UserError, match="of another version"), owned(tmp_path, ["distill"], "distill", REMEDY):
        pytest.fail("owned twice")
    stop.set()
    thread.join()


@pytest.mark.parametrize("no_locks", [errno.ENOLCK], indirect=True)
def test_without_locks_a_lock_file_without_a_counter_is_taken_over(tmp_path, no_locks, caplog):
    path = tmp_path / "locks" / "distill"
    path.parent.mkdir()
    path.write_text('{"command": "distill"}')
    with owned(tmp_path, ["distill"], "distill", REMEDY):
        pass
    assert "has no counter" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[" * 100_000, b"\xff" * 5_000, b'{"command": 1, "beat": "x", "process": -1, "machine": []}'],
)
def test_a_lock_file_that_says_nothing_is_replaced(tmp_path, quick, content):
    path = tmp_path / "locks" / "distill"
    path.parent.mkdir()
    path.write_bytes(content)
    with owned(tmp_path, ["distill"], "distill", REMEDY):
        found = read_owner(path)  # whole, whatever stood after it
        assert found is not None and found.process == os.getpid()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file_is_one_line(tmp_path, make):
    path = tmp_path / "locks" / "distill"
    path.parent.mkdir()
    make(path)
    with (
        pytest.raises(UserError, match=f"{path} is no regular file: delete it"),
        owned(tmp_path, ["distill"], "distill", REMEDY),
    ):
        pytest.fail("owned")


def test_ranks_follow_the_first_one_of_their_launch(tmp_path, quick):
    with owned(tmp_path, ["distill"], "distill", REMEDY, launch="ours"):
        await_owner(tmp_path, "distill", "ours", REMEDY)
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            await_owner(tmp_path, "distill", "another", REMEDY)
    await_owner(tmp_path, "distill", "ours", REMEDY)  # a rank that starts when the first one has finished
    with pytest.raises(WorkError, match="the first rank has not begun `distill`"):
        await_owner(tmp_path, "distill", "another", REMEDY, patience=0.2)
    with owned(tmp_path, ["distill"], "distill", REMEDY):
        pass
    assert not (tmp_path / "locks").exists()


def test_a_launch_is_told_from_others():
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    srun = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "3", "SLURM_JOB_ID": "11"}

    def launch(environment):
        ranks = launched_ranks(environment)
        assert ranks is not None
        return ranks.launch

    assert launch(torchrun) == launch({**torchrun, "RANK": "0", "LOCAL_RANK": "0"})
    assert launch(torchrun) != launch({**torchrun, "MASTER_PORT": "29501"})
    assert launch(torchrun) != launch({**torchrun, "TORCHELASTIC_RUN_ID": "abc"})
    assert launch(srun) == launch({**srun, "SLURM_PROCID": "0"}) != launch({**srun, "SLURM_STEP_ID": "1"})
