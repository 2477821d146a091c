"""Work on measured cases: in their order, beside what is measured next or at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from perf_tests.harness.lanes.afterwork import Afterwork
from perf_tests.protocol.errors import PerfError

GENEROUS_S = 30.0


@pytest.fixture
def beside() -> Iterator[Afterwork]:
    work = Afterwork(beside=True)
    yield work
    work.close()


def fail() -> None:
    raise PerfError("the disk is full")


def test_work_at_once_is_done_when_it_is_handed_in() -> None:
    work, done = Afterwork(beside=False), [""]
    work.do("a", lambda: done.append("a"))
    assert done == ["", "a"]
    assert not work.is_left
    with pytest.raises(PerfError, match="the disk is full"):
        work.do("b", fail)


def test_work_beside_is_done_in_its_order_while_others_go_on(beside: Afterwork) -> None:
    go_on, done = threading.Event(), []

    def first() -> None:
        assert go_on.wait(GENEROUS_S)
        done.append("first")

    beside.do("first", first)
    beside.do("second", lambda: done.append("second"))
    assert done == []  # nobody has waited
    assert (beside.holds("first"), beside.holds("second"), beside.holds("third")) == (True, True, False)
    go_on.set()
    beside.wait()
    assert done == ["first", "second"]
    assert not beside.is_left


def test_what_fails_beside_is_raised_by_the_wait(beside: Afterwork) -> None:
    both, done = threading.Event(), []
    beside.do("a", lambda: fail() if both.wait(GENEROUS_S) else None)
    beside.do("b", lambda: done.append("b"))
    both.set()
    with pytest.raises(PerfError, match="the disk is full"):
        beside.wait()
    beside.wait()  # it is told once
    assert done == ["b"]


def test_what_fails_beside_is_raised_when_the_next_is_handed_in(beside: Afterwork) -> None:
    both, ended = threading.Event(), threading.Event()
    beside.do("a", lambda: fail() if both.wait(GENEROUS_S) else None)
    beside.do("b", ended.set)
    both.set()
    assert ended.wait(GENEROUS_S)  # so that the first has ended, too
    with pytest.raises(PerfError, match="the disk is full"):
        beside.do("c", ended.set)


def test_only_the_thread_that_works_is_that_of_the_work(beside: Afterwork) -> None:
    seen = []
    beside.do("a", lambda: seen.append(beside.is_mine))
    beside.wait()
    assert seen == [True]
    assert not beside.is_mine


def test_closing_finishes_and_says_nothing() -> None:
    work, both, done = Afterwork(beside=True), threading.Event(), []
    work.do("a", lambda: fail() if both.wait(GENEROUS_S) else None)
    work.do("b", lambda: done.append("b"))
    both.set()
    work.close()
    work.close()
    assert done == ["b"]
