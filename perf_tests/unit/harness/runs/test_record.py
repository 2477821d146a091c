from __future__ import annotations

from perf_tests.harness.runs.record import REASON_OF_PROGRESS, STATUS_OF_FAILURE, Progress, Status
from perf_tests.protocol.messages import FailureKind


def test_failures_have_a_status_that_is_green_only_if_unsupported() -> None:
    assert set(STATUS_OF_FAILURE) == set(FailureKind)
    green = [kind for kind, status in STATUS_OF_FAILURE.items() if status.is_green]
    assert green == [FailureKind.UNSUPPORTED]


def test_statuses_of_failed_cases_are_errors() -> None:
    assert {status.value for status in Status if status.is_error} == {
        "ERROR(oom)",
        "ERROR(timeout)",
        "ERROR(crash)",
        "ERROR(numerics)",
        "ERROR(load)",
        "ERROR(unproven)",
    }


def test_reasons_tell_apart_how_far_an_unjudged_run_has_come() -> None:
    assert set(Progress) - REASON_OF_PROGRESS.keys() == {Progress.JUDGED}
    assert len(set(REASON_OF_PROGRESS.values())) == 3
