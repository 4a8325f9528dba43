"""Wherever tasks run and whichever worker dies: the same files, and each task is reported once."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from lcm_distill.core.errors import UserError, WorkError
from lcm_distill.pipeline.executors.choice import choose_executor
from lcm_distill.pipeline.executors.dispatch import chunks
from lcm_distill.pipeline.executors.heartbeats import WorkerStatus, heartbeat, read_workers, worker_name
from lcm_distill.pipeline.executors.processes import Processes
from lcm_distill.pipeline.executors.ranks import Ranks, launched_ranks, share
from lcm_distill.pipeline.executors.serial import Serial
from lcm_distill.pipeline.storage import LocalStorage
from tests.pipeline.workload import (
    EXPECTED,
    TASKS,
    assert_traceback_is_logged,
    contents,
    fail_at,
    manifest_in,
    work_in,
)


def run(executor, root):
    return list(executor.run(TASKS, manifest_in(root), work_in(root)))


def assert_complete(root):
    assert contents(root) == EXPECTED
    assert manifest_in(root).done(TASKS).keys() == {task.name for task in TASKS}
    assert manifest_in(root).read()["row"].to_pylist() == list(range(20))


@pytest.mark.parametrize("executor", [Serial(), Processes(3)], ids=["serial", "processes"])
def test_every_task_is_done_and_told_once(tmp_path, executor):
    list(executor.run(TASKS[:4], manifest_in(tmp_path), work_in(tmp_path)))
    (tmp_path / "shards/2").unlink()
    told = run(executor, tmp_path)
    assert sorted(task.name for task, _, _ in told) == [task.name for task in TASKS]
    assert [(commit.task.name, commit.resumed) for commit in told[:4]] == [
        ("t00", True), ("t01", True), ("t03", True), (told[3].task.name, False)
    ]  # fmt: skip
    assert {commit.entry.task: commit.entry.rows for commit in told} == {task.name: 1 for task in TASKS}
    assert_complete(tmp_path)
    assert read_workers(LocalStorage(tmp_path)) == []


def test_processes_that_die_are_replaced(tmp_path):
    fail_at(tmp_path, TASKS[3], "kill", times=2)
    fail_at(tmp_path, TASKS[11], "kill")
    fail_at(tmp_path, TASKS[19], "bug")
    assert len(run(Processes(2), tmp_path)) == 20
    assert_complete(tmp_path)


def test_what_kills_again_and_again_is_given_up_and_the_rest_done(tmp_path):
    fail_at(tmp_path, TASKS[5], "bug", times=3)
    with pytest.raises(WorkError, match=r"1 of 20 tasks failed 3 times, such as t05 \(RuntimeError: out of luck\)"):
        run(Processes(2), tmp_path)
    assert manifest_in(tmp_path).done(TASKS).keys() == {task.name for task in TASKS} - {"t05"}
    failed = [worker for worker in read_workers(LocalStorage(tmp_path)) if "t05" in worker.tasks]
    assert failed and all("RuntimeError: out of luck" in (worker.error or "") for worker in failed)
    assert sum(not already for _, already, _ in run(Processes(2), tmp_path)) == 1
    assert_complete(tmp_path)


def test_the_traceback_of_a_worker_failure_is_in_its_log_file(tmp_path, logs):
    fail_at(tmp_path, TASKS[5], "bug")
    run(Processes(2), tmp_path)
    assert_traceback_is_logged(logs)
    assert "ended with" in (logs / "main.log").read_text()


def test_an_error_of_the_user_ends_all_at_once(tmp_path):
    fail_at(tmp_path, TASKS[0], "user")
    with pytest.raises(UserError, match=r"^the VAE is missing: put it there$"):
        run(Processes(2), tmp_path)


def test_chunks_are_consecutive_and_keep_all_workers_busy():
    parts = chunks(TASKS, workers=2)
    assert [task for part in parts for task in part] == TASKS
    assert [len(part) for part in parts] == [2] * 10
    assert {len(part) for part in chunks(TASKS * 1000, workers=2)} <= {64, 20_000 % 64}


@pytest.mark.parametrize("world", [1, 2, 3, 7, 50])
def test_ranks_share_all_tasks_and_none_twice(world):
    shares = [share(TASKS, rank, world) for rank in range(world)]
    assert sorted(task.name for mine in shares for task in mine) == [task.name for task in TASKS]


def rank_names(root, rank, world, patience):
    executor = Ranks(rank, world, rank, patience)
    return [task.name for task, _, _ in executor.run(TASKS, manifest_in(root), work_in(root))]


def test_the_first_rank_waits_for_the_others(tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as others:
        futures = [others.submit(rank_names, tmp_path, rank, 3, 200.0) for rank in (1, 2)]
        told = rank_names(tmp_path, 0, 3, 200.0)
        assert all(future.result() for future in futures)
    assert sorted(told) == [task.name for task in TASKS]
    assert_complete(tmp_path)


def test_the_first_rank_tells_when_nobody_is_left(tmp_path):
    with pytest.raises(WorkError, match=r"tasks of other ranks are not done.*the same command does them"):
        rank_names(tmp_path, 0, 2, 0.3)
    assert manifest_in(tmp_path).done(TASKS).keys() == {task.name for task in share(TASKS, 0, 2)}
    assert len(rank_names(tmp_path, 0, 1, 0.3)) == 20


def test_ranks_are_known_by_their_launcher():
    torchrun = {"RANK": "3", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}
    srun = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    assert launched_ranks(torchrun) == Ranks(3, 16, 1, launch="16")
    assert launched_ranks(srun) == Ranks(0, 2, 0, launch="2")
    assert launched_ranks({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None  # a batch script, not one of its ranks
    assert launched_ranks({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("ranks", None, None), "torchrun"),
        (("serial", 2, None), "--workers goes with"),
        (("processes", 2, "localhost:6379"), "--ray-address goes with"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(UserError, match=message):
        choose_executor(*options)
    assert choose_executor("auto", 2) == Processes(2) and isinstance(choose_executor(), Serial)


def test_heartbeats_list_running_tasks_and_errors(tmp_path):
    storage = LocalStorage(tmp_path)
    with heartbeat(storage) as own:
        tasks = own.track(TASKS)
        next(tasks)
        next(tasks)
        own.finish(TASKS[0])
        own.write()
        (worker,) = read_workers(storage)
        assert (worker.name, worker.tasks, worker.error, worker.alive) == (worker_name(), ["t01"], None, True)
    assert read_workers(storage) == []
    with pytest.raises(RuntimeError), heartbeat(storage) as own:
        next(own.track(TASKS))
        raise RuntimeError("out of luck")
    (worker,) = read_workers(storage)
    assert not worker.alive and worker.error and worker.error.endswith("RuntimeError: out of luck\n")
    assert not WorkerStatus("elsewhere-1", [], time.time() - 100).alive


def endless(root, pids):
    def stay(tasks):
        pids.put(os.getpid())
        for task in tasks:
            time.sleep(600)
            yield task, [], None

    return stay


def lead(root, pids):
    from functools import partial

    list(Processes(2).run(TASKS, manifest_in(root), partial(_open_endless, pids)))


def _open_endless(pids, device):
    return endless(None, pids)


def test_workers_do_not_outlive_their_parent(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        pids = manager.Queue()
        parent = context.Process(target=lead, args=(tmp_path, pids))
        parent.start()
        workers = [pids.get(timeout=300), pids.get(timeout=300)]
        assert parent.pid is not None
        os.kill(parent.pid, signal.SIGKILL)
        parent.join()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(is_running(worker) for worker in workers):
            time.sleep(0.05)
        assert not any(is_running(worker) for worker in workers)


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as status:  # noqa: PTH123
            return status.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
