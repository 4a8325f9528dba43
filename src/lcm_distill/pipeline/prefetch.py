"""Work done in threads ahead of its use."""

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Queue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch_map(work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int) -> Generator[Result]:
    """`work(item)` of every item, in order, computed while earlier results are used.

    `items` is iterated in a thread of its own, so it may read files; `work` runs in `workers` threads.

    Args:
        ahead: the most results that may wait to be used; reading and working pause at that number.

    Raises:
        BaseException: whatever `items` or `work` raise, where their result would have been.
    """
    waiting: Queue[Future[Result] | None] = Queue(maxsize=ahead)
    stopped = threading.Event()

    def feed() -> None:
        try:
            for item in items:
                if stopped.is_set():
                    return
                waiting.put(pool.submit(work, item))
            waiting.put(None)
        except BaseException as error:
            failed: Future[Result] = Future()
            failed.set_exception(error)
            waiting.put(failed)

    with ThreadPoolExecutor(workers) as pool:
        feeder = threading.Thread(target=feed, name="prefetch", daemon=True)
        feeder.start()
        try:
            while (result := waiting.get()) is not None:
                yield result.result()
        finally:
            stopped.set()
            _drain(waiting, feeder)


def one_ahead(
    work: Callable[[Item, Callable[[], bool]], Result], items: Iterable[Item]
) -> Generator[tuple[Item, Result]]:
    """Every item with `work(item, stopped)`, in order; that of the next item is done in a thread meanwhile.

    `items` is iterated in the calling thread, one item further than what is yielded.

    Args:
        work: ends soon once `stopped()` is true; what it returns then is not used.

    Raises:
        BaseException: whatever `items` or `work` raise.
    """
    stopped = threading.Event()
    with ThreadPoolExecutor(1, "ahead") as pool:
        try:
            before: tuple[Item, Future[Result]] | None = None
            for item in items:
                begun = item, pool.submit(work, item, stopped.is_set)
                if before is not None:
                    yield before[0], before[1].result()
                before = begun
            if before is not None:
                yield before[0], before[1].result()
        finally:
            stopped.set()


def _drain(waiting: "Queue[Future[Result] | None]", feeder: threading.Thread) -> None:
    """Empty the queue until the feeder, which may be blocked on a full one, has noticed that it should stop."""
    while feeder.is_alive():
        try:
            waiting.get(timeout=0.01)
        except Empty:
            continue
