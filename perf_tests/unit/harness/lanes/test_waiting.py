"""Waiting that looks up now and then, so that a signal which did not wake it is seen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import pytest

from perf_tests.harness.lanes import waiting
from perf_tests.harness.lanes.waiting import all_or_failed, result_of, until, until_done


class Watched(Future[int]):
    """Settled when it has been waited for three times."""

    def __init__(self, settle: Callable[[Future[int]], object]) -> None:
        super().__init__()
        self.settle = settle
        self.waited_s: list[float | None] = []

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.waited_s.append(timeout)
        if len(self.waited_s) < 3:
            raise TimeoutError
        self.settle(self)
        return super().exception()


def settled(settle: Callable[[Future[int]], object]) -> Future[int]:
    future: Future[int] = Future()
    settle(future)
    return future


def test_a_result_is_waited_for_in_short_turns() -> None:
    future = Watched(lambda each: each.set_result(7))
    assert (result_of(future), future.waited_s) == (7, [0.5, 0.5, 0.5])


@pytest.mark.parametrize("error", [TimeoutError("its own"), ValueError("its own")])
def test_what_a_future_raises_is_raised(error: Exception) -> None:
    future = Watched(lambda each: each.set_exception(error))
    until_done(future)
    with pytest.raises(type(error), match="its own"):
        result_of(future)


def test_a_future_that_is_cancelled_is_not_waited_for_ever() -> None:
    with pytest.raises(CancelledError):
        result_of(Watched(Future.cancel))


def test_the_first_failure_ends_the_wait_for_all() -> None:
    failed = settled(lambda each: each.set_exception(ValueError("its own")))
    done, left = settled(lambda each: each.set_result(7)), Future[int]()
    assert all_or_failed((left, failed, done)) == {failed, done}
    assert all_or_failed((done,)) == {done}


def test_all_are_waited_for_in_short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    left: Future[int] = Future()
    asked: list[float] = []

    def waited(futures: tuple[Future[int]], turn_s: float, _: str) -> tuple[set[object], set[object]]:
        asked.append(turn_s)
        return (set(), {*futures}) if len(asked) < 3 else ({*futures}, set())

    monkeypatch.setattr(waiting, "wait", waited)
    assert (all_or_failed((left,)), asked) == ({left}, [0.5, 0.5, 0.5])


def test_a_condition_is_waited_for_in_short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    changed, asked = threading.Condition(), list[float]()

    def turn(holds: Callable[[], object], turn_s: float) -> bool:
        asked.append(turn_s)
        return bool(holds())

    monkeypatch.setattr(changed, "wait_for", turn)
    with changed:
        until(changed, lambda: len(asked) == 3)
    assert asked == [0.5, 0.5, 0.5]
