"""What is still begun when time runs short."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from perf_tests.harness.planning.budget import Budget


def budget(seconds: float, *times: float) -> Budget:
    """A budget that began at 100 s and is asked at `times`; its only known case takes 60 s."""
    clock: Iterator[float] = iter((100.0, *times))
    return Budget(seconds, {"long": 60.0}, clock=lambda: next(clock))


def test_a_case_is_begun_while_it_is_expected_to_fit() -> None:
    assert budget(100.0, 140.0).refusal("long") is None


def test_a_case_that_is_expected_to_take_longer_than_what_is_left_is_not() -> None:
    assert budget(100.0, 150.0).refusal("long") == (
        "expected to take 60 s, and 50 s of the budget of 100 s are left; --perf-resume runs the rest"
    )


def test_a_shorter_case_is_begun_where_a_long_one_was_not() -> None:
    asked = budget(100.0, 150.0, 150.0)
    assert asked.refusal("long") is not None
    assert asked.refusal("nobody knows") is None


def test_nothing_is_begun_once_the_time_is_spent() -> None:
    assert budget(100.0, 200.0).refusal("nobody knows") == (
        "the budget of 100 s is spent; --perf-resume runs the rest"
    )


@pytest.mark.parametrize("now", [100.0, 1e9])
def test_without_an_end_everything_is_begun(now: float) -> None:
    assert budget(math.inf, now).refusal("long") is None
