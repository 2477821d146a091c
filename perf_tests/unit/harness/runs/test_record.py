from __future__ import annotations

from perf_tests.harness.runs.record import REASON_OF_PROGRESS, STATUS_OF_FAILURE, Progress, Status
from perf_tests.protocol.messages import FailureKind


def test_every_kind_of_failure_has_a_status_that_is_not_green_unless_unsupported() -> None:
    assert set(STATUS_OF_FAILURE) == set(FailureKind)
    green = [kind for kind, status in STATUS_OF_FAILURE.items() if status.is_green]
    assert green == [FailureKind.UNSUPPORTED]


def test_only_errors_count_as_errors() -> None:
    assert {status.value for status in Status if status.is_error} == {
        "ERROR(oom)",
        "ERROR(timeout)",
        "ERROR(crash)",
        "ERROR(numerics)",
        "ERROR(load)",
        "ERROR(unproven)",
    }


def test_only_a_judged_run_has_a_reason_of_its_own() -> None:
    assert set(Progress) - REASON_OF_PROGRESS.keys() == {Progress.JUDGED}
    assert len(set(REASON_OF_PROGRESS.values())) == 3
