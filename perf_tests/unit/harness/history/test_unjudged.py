"""Which cases no night judges: whatever the reason, once it has been so for three nights."""

from __future__ import annotations

import pytest

from perf_tests.harness.history.files import StoredNight
from perf_tests.harness.history.night import BUILD, NightHeader, NightRow
from perf_tests.harness.history.unjudged import unjudged
from perf_tests.harness.runs.record import Status

STEP = "denoise_step_ms"


def night(day: int, **statuses: str) -> StoredNight:
    """One in which the build and the step of a case `row` had these statuses."""
    header = NightHeader(
        format_version=1, night=f"2026-11-{day:02}", run="1", platform="h100", methodology=1, packages={}
    )
    named = {"build": BUILD, "step": STEP}
    rows = tuple(
        NightRow(case="row", metric=named[name], digest="0", status=status)
        for name, status in statuses.items()
    )
    return StoredNight(night=header, rows=rows)


INVALID = night(1, build="PASS", step="INVALID")
SPOILED = [INVALID, night(2, build="PASS", step="INVALID")]
NOT_RUN = night(2, build="NOT_RUN(budget)")
JUDGED = night(3, build="PASS", step="PASS")
RED = night(3, build="PASS", step="REGRESSED")
FAILED = night(3, build="ERROR(oom)")


def test_a_metric_without_a_verdict_in_three_nights_is_named_with_the_reasons() -> None:
    nights = [INVALID, NOT_RUN, night(3, build="PASS", step="INVALID")]
    assert unjudged(nights) == {"row": frozenset({Status.INVALID, Status.NOT_RUN})}


def test_a_case_that_was_never_run_is_named() -> None:
    assert unjudged([night(day, build="NOT_RUN(budget)") for day in (1, 2, 3)]) == {
        "row": frozenset({Status.NOT_RUN})
    }


@pytest.mark.parametrize("judged", [JUDGED, RED, FAILED], ids=["green", "red", "failed"])
def test_one_night_with_a_verdict_is_enough(judged: StoredNight) -> None:
    assert unjudged([*SPOILED, judged]) == {}
    assert unjudged([INVALID, judged, night(4, build="PASS", step="INVALID")]) == {}


def test_three_nights_are_the_last_ones() -> None:
    last = [night(day, build="PASS", step="INVALID") for day in (4, 5, 6)]
    assert unjudged([JUDGED, *last]) == {"row": frozenset({Status.INVALID})}


def test_attempts_of_one_night_are_one_night() -> None:
    assert unjudged([INVALID, INVALID, INVALID]) is None
    assert unjudged([INVALID, NOT_RUN, NOT_RUN]) is None


def test_a_verdict_of_any_attempt_is_one_of_the_night() -> None:
    assert unjudged([*SPOILED, night(3, build="PASS", step="PASS"), night(3, build="NOT_RUN(budget)")]) == {}
    assert unjudged([*SPOILED, night(3, build="NOT_RUN(budget)"), night(3, build="PASS", step="PASS")]) == {}


def test_fewer_nights_say_nothing() -> None:
    assert unjudged(SPOILED) is None


def test_a_night_that_never_came_to_a_case_gave_it_no_verdict() -> None:
    assert unjudged([*SPOILED, night(3)]) == {"row": frozenset({Status.INVALID})}


def test_a_case_that_is_new_has_had_no_three_nights() -> None:
    assert unjudged([night(1), night(2), night(3, build="PASS", step="INVALID")]) == {}
