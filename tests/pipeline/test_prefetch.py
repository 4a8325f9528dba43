"""Work ahead keeps its order, its bounds and its errors."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lcm_distill.pipeline.prefetch import one_ahead, prefetch_map


def test_results_keep_their_order():
    assert list(prefetch_map(lambda n: n * n, range(100), workers=3, ahead=4)) == [n * n for n in range(100)]


def test_no_more_is_read_than_may_wait():
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number

    results = prefetch_map(lambda n: n, items(), workers=2, ahead=4)
    assert next(results) == 0
    # one result taken, four waiting, one that the feeder holds
    assert len(read) <= 6
    assert list(results) == list(range(1, 100))


def test_errors_come_where_their_result_would_have():
    def work(number):
        if number == 3:
            raise ValueError("three")
        return number

    results = prefetch_map(work, range(10), workers=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_errors_of_the_items_come_through():
    def items():
        yield 1
        raise OSError("unplugged")

    results = prefetch_map(lambda n: n, items(), workers=1, ahead=2)
    assert next(results) == 1
    with pytest.raises(OSError, match="unplugged"):
        next(results)


def test_threads_end_when_the_caller_stops_early():
    before = threading.active_count()
    results = prefetch_map(lambda n: n, iter(int, 1), workers=2, ahead=2)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_one_ahead_works_on_the_next_item_while_a_result_is_used():
    begun = [threading.Event() for _ in range(3)]
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in range(3):
            asked.append(threading.get_ident())
            yield item

    def work(item: int, stopped: Callable[[], bool]) -> int:
        begun[item].set()
        return 10 * item

    results = one_ahead(work, items())
    assert next(results) == (0, 0) and begun[1].wait(10) and not begun[2].is_set()
    assert list(results) == [(1, 10), (2, 20)] and set(asked) == {threading.get_ident()}


def test_one_ahead_stops_what_nobody_waits_for():
    ended = threading.Event()

    def work(item: int, stopped: Callable[[], bool]) -> None:
        while item and not stopped():
            time.sleep(0.001)
        ended.set()

    results = one_ahead(work, [0, 1])
    next(results)
    ended.clear()
    results.close()
    assert ended.is_set()


def test_one_ahead_raises_what_items_and_work_raise():
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with pytest.raises(ZeroDivisionError):
        list(one_ahead(lambda item, stopped: 1 // item, [1, 0]))
    with pytest.raises(OSError, match="no more"):
        list(one_ahead(lambda item, stopped: item, items()))
