"""Group commit: who writes at once, who waits and is written with others, and what each caller gets."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from services.usage.usecases.combiner import Combiner
from tests.eventually import eventually


class Writer:
    """Holds each write until it is released, and answers with each item's double."""

    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self.release = threading.Event()

    def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.begun.append(list(items))
        assert self.release.wait(10)
        if -1 in items:
            raise ValueError("refused")
        return [2 * item for item in items]


@pytest.fixture
def writer() -> Writer:
    return Writer()


def start(pool: ThreadPoolExecutor, combiner: Combiner[int, int], *calls: list[int]) -> list[Future[Sequence[int]]]:
    return [pool.submit(combiner, call) for call in calls]


def waiting(combiner: Combiner[int, int], items: int) -> None:
    eventually(lambda: combiner.waiting == items)


def test_small_calls_wait_for_the_one_writer_and_are_written_together(writer: Writer) -> None:
    combiner = Combiner(writer, places=3, most=100, worthwhile=10)
    with ThreadPoolExecutor(8) as pool:
        first = start(pool, combiner, [1])
        eventually(lambda: writer.begun)
        others = start(pool, combiner, [2], [3, 4])
        waiting(combiner, 3)
        assert writer.begun == [[1]]
        writer.release.set()
        assert [list(call.result(10)) for call in first + others] == [[2], [4], [6, 8]]
    assert sorted(map(sorted, writer.begun)) == [[1], [2, 3, 4]]


def test_enough_items_begin_a_further_writer_that_takes_the_waiting_along(writer: Writer) -> None:
    combiner = Combiner(writer, places=2, most=100, worthwhile=4)
    with ThreadPoolExecutor(8) as pool:
        first = start(pool, combiner, [1])
        eventually(lambda: writer.begun)
        small = start(pool, combiner, [2])
        waiting(combiner, 1)
        large = start(pool, combiner, [3, 4, 5])
        eventually(lambda: len(writer.begun) == 2)
        assert sorted(writer.begun[1]) == [2, 3, 4, 5]
        # Both places are taken now: however much comes, it waits.
        late = start(pool, combiner, [6] * 50)
        waiting(combiner, 50)
        writer.release.set()
        assert [list(call.result(10)) for call in first + small + large] == [[2], [4], [6, 8, 10]]
        assert list(late[0].result(10)) == [12] * 50


def test_no_write_is_larger_than_the_most_but_for_a_single_call(writer: Writer) -> None:
    combiner = Combiner(writer, places=1, most=3, worthwhile=1)
    with ThreadPoolExecutor(8) as pool:
        first = start(pool, combiner, [1])
        eventually(lambda: writer.begun)
        others = start(pool, combiner, [2, 2], [3, 3], [4, 4, 4, 4])
        waiting(combiner, 8)
        writer.release.set()
        assert [list(call.result(10)) for call in first + others] == [[2], [4, 4], [6, 6], [8, 8, 8, 8]]
    assert sorted(map(len, writer.begun)) == [1, 2, 2, 4]


def test_an_error_reaches_every_caller_of_its_group_and_no_other(writer: Writer) -> None:
    combiner = Combiner(writer, places=1, most=100, worthwhile=100)
    with ThreadPoolExecutor(8) as pool:
        first = start(pool, combiner, [1])
        eventually(lambda: writer.begun)
        group = start(pool, combiner, [2], [-1])
        waiting(combiner, 2)
        writer.release.set()
        assert list(first[0].result(10)) == [2]
        for call in group:
            with pytest.raises(ValueError, match="refused"):
                call.result(10)
        assert list(combiner([5])) == [10]
