"""planning/budget.py: an expectation in, leave to start or a reason out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from perf_tests.harness.planning.budget import Budget


def budget(seconds: float, *times: float) -> Budget:
    """A budget that starts at 100 s and is asked at `times`; the only case it knows takes 60 s."""
    clock: Iterator[float] = iter((100.0, *times))
    return Budget(seconds, {"long": 60.0}, clock=lambda: next(clock))


def test_a_case_starts_while_it_is_expected_to_fit() -> None:
    assert budget(100.0, 140.0).refusal("long") is None


def test_a_case_that_is_expected_not_to_fit_does_not_start() -> None:
    assert budget(100.0, 150.0).refusal("long") == (
        "expected to take 60 s, but only 50 s of the budget of 100 s are left; --perf-resume runs the rest"
    )


def test_a_shorter_case_starts_where_a_long_one_did_not() -> None:
    asked = budget(100.0, 150.0, 150.0)
    assert asked.refusal("long") is not None
    assert asked.refusal("nobody knows") is None


def test_no_case_starts_once_the_time_is_spent() -> None:
    assert budget(100.0, 200.0).refusal("nobody knows") == (
        "the budget of 100 s is spent; --perf-resume runs the rest"
    )


@pytest.mark.parametrize("now", [100.0, 1e9])
def test_every_case_starts_within_an_unlimited_budget(now: float) -> None:
    assert budget(math.inf, now).refusal("long") is None
