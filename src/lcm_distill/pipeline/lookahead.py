"""Work done ahead of its use, in threads."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Queue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int) -> Iterator[Result]:
    """`work` of every item, in order, while the next ones are already read and worked on.

    Items are drawn in one thread of their own, so `items` may read files; `work` runs in `workers` threads.

    Args:
        ahead: how many results may wait to be used; reading and working pause when they do.

    Raises:
        whatever `items` or `work` raise, where their result would have been.
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
        feeder = threading.Thread(target=feed, name="lookahead", daemon=True)
        feeder.start()
        try:
            while (result := waiting.get()) is not None:
                yield result.result()
        finally:
            stopped.set()
            _drain(waiting, feeder)


def _drain(waiting: "Queue[Future[Result] | None]", feeder: threading.Thread) -> None:
    """Take what the feeder still holds, so that it finds room, sees that it should stop, and ends."""
    while feeder.is_alive():
        try:
            waiting.get(timeout=0.01)
        except Empty:
            continue
