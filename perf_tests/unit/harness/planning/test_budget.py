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


def test_what_comes_beside_the_cases_is_begun_where_the_time_suffices() -> None:
    assert budget(100.0, 140.0).lacks(60.0) is None
    assert budget(100.0, 141.0).lacks(60.0) == (
        "it takes about 60 s, and 59 s are left of the budget of 100 s"
    )
    assert budget(100.0, 600.0).lacks(1.0) == "it takes about 1 s, and 0 s are left of the budget of 100 s"


def of_family(seconds: float) -> Budget:
    """A budget whose clock stands; two cases of 30 s are compared with one that takes 50 s."""
    expected_s = {"int8": 30.0, "fp8": 30.0, "bf16": 50.0}
    return Budget(seconds, expected_s, lambda: 0.0, {"int8": "bf16", "fp8": "bf16"})


def test_a_case_does_not_start_where_its_reference_would_not_fit() -> None:
    assert of_family(70.0).refusal("int8") == (
        "expected to take 80 s with its reference, but only 70 s of the budget of 70 s are left; "
        "--perf-resume runs the rest"
    )


def test_a_reference_counts_for_the_first_case_that_needs_it() -> None:
    asked = of_family(80.0)
    assert [asked.refusal(case) for case in ("int8", "fp8", "bf16")] == [None, None, None]


def test_a_reference_that_was_selected_itself_counts_once() -> None:
    asked = of_family(50.0)
    assert [asked.refusal(case) for case in ("bf16", "int8")] == [None, None]
