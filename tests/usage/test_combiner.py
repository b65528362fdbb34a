"""Group commit: who writes at once, who waits and is written with others, and what each caller gets."""

import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

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


def test_a_call_alone_writes_in_its_own_thread_and_those_that_wait_in_none_of_theirs(writer: Writer) -> None:
    threads: list[int] = []

    def write(items: Sequence[int]) -> Sequence[int]:
        threads.append(threading.get_ident())
        return writer(items)

    combiner = Combiner(write, places=1, most=100, worthwhile=100)
    writer.release.set()
    combiner([1])
    assert threads == [threading.get_ident()]
    writer.release.clear()
    callers: list[int] = []

    def call(item: int) -> None:
        callers.append(threading.get_ident())
        combiner([item])

    with ThreadPoolExecutor(3) as pool:
        pool.submit(call, 1)
        eventually(lambda: len(writer.begun) == 2)
        waiters = [pool.submit(call, item) for item in (2, 3)]
        waiting(combiner, 2)
        writer.release.set()
        for waiter in waiters:
            waiter.result(10)
    assert threads[1] in callers
    assert threads[2] not in callers
    # It rests now, and whoever comes alone is not sent to it.
    combiner([4])
    assert threads[3] == threading.get_ident()


def test_a_group_is_written_in_the_context_of_its_first_call(writer: Writer) -> None:
    name: ContextVar[str] = ContextVar("name", default="none")
    seen: list[str] = []

    def write(items: Sequence[int]) -> Sequence[int]:
        seen.append(name.get())
        return writer(items)

    combiner = Combiner(write, places=1, most=100, worthwhile=100)

    def call(item: int) -> None:
        name.set(f"call {item}")
        combiner([item])

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call, 1)]
        eventually(lambda: writer.begun)
        for item in (2, 3):
            calls.append(pool.submit(call, item))
            waiting(combiner, item - 1)
        writer.release.set()
        for each in calls:
            each.result(10)
    assert seen == ["call 1", "call 2"]


@pytest.mark.parametrize("places", [1, 3])
def test_each_of_many_calls_gets_its_own_results_and_no_writer_too_many_is_at_work(places: int) -> None:
    at_work, most, lock = 0, 0, threading.Lock()

    def write(items: Sequence[int]) -> Sequence[int]:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        # What a write takes: others come meanwhile.
        time.sleep(0.0005)
        with lock:
            at_work -= 1
        if any(item % 97 == 0 for item in items):
            raise ValueError("refused")
        return [2 * item for item in items]

    combiner = Combiner(write, places=places, most=20, worthwhile=8)
    answered, refused = [], []

    def caller(start: int) -> None:
        for number in range(start, start + 100):
            items = [number] * (number % 5 + 1)
            try:
                results = combiner(items)
            except ValueError:
                refused.append(number)
            else:
                assert list(results) == [2 * item for item in items]
                answered.append(number)

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(caller, 1_000 * each) for each in range(16)]:
            done.result(60)
    assert sorted(answered + refused) == [1_000 * each + number for each in range(16) for number in range(100)]
    assert {number for number in range(0, 16_000, 97) if number % 1_000 < 100} <= set(refused)
    assert most <= places
    assert combiner.waiting == 0


def test_where_no_thread_can_be_started_the_caller_writes_for_those_who_wait(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    combiner = Combiner(writer, places=1, most=100, worthwhile=100)
    start_thread = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "combiner":
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    with ThreadPoolExecutor(8) as pool:
        first = start(pool, combiner, [1])
        eventually(lambda: writer.begun)
        others = start(pool, combiner, [2], [3])
        waiting(combiner, 2)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        writer.release.set()
        assert [list(call.result(10)) for call in first + others] == [[2], [4], [6]]
        monkeypatch.undo()
        assert [list(call.result(10)) for call in start(pool, combiner, [4], [5])] == [[8], [10]]


def test_results_that_are_none_are_an_error_of_the_group_and_the_place_is_free_again() -> None:
    answers: list[Any] = [None, [2]]
    combiner: Combiner[int, int] = Combiner(lambda _items: answers.pop(0), places=1, most=100, worthwhile=100)
    with pytest.raises(TypeError):
        combiner([1])
    assert list(combiner([1])) == [2]


def test_callers_of_a_group_do_not_lengthen_each_others_traceback(writer: Writer) -> None:
    combiner = Combiner(writer, places=1, most=100, worthwhile=100)
    with ThreadPoolExecutor(20) as pool:
        first = start(pool, combiner, [1])
        eventually(lambda: writer.begun)
        group = start(pool, combiner, *[[-1] for _ in range(16)])
        waiting(combiner, 16)
        writer.release.set()
        first[0].result(10)
        errors = [call.exception(10) for call in group]
    assert {type(error) for error in errors} == {ValueError}
    assert max(len(traceback.extract_tb(error.__traceback__)) for error in errors if error) < 12
