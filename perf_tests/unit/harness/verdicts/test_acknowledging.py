"""A known regression is neither red nor green, until it gets worse, its day has passed, or it is gone."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest

from perf_tests.harness.baselines.acknowledged import Acknowledgement
from perf_tests.harness.runs.record import Status
from perf_tests.harness.verdicts.acknowledging import acknowledged
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.unit.builders import make_verdict

ENTRY = Acknowledgement(
    case="flux1-dev-b1-fp8dqrow-regional",
    metric="denoise_step_ms",
    limit=105.0,
    issue="https://example.org/issues/7",
    owner="@octocat",
    until=date(2026, 12, 1),
)
LAST_DAY, DAY_AFTER = date(2026, 12, 1), date(2026, 12, 2)
RED = make_verdict("denoise_step_ms", Status.REGRESSED, measured=104.0, baseline=100.0)


def judged(today: date = LAST_DAY, entry: Acknowledgement = ENTRY, **changes: object) -> tuple[Status, str]:
    verdict = msgspec.structs.replace(RED, **changes)
    found = acknowledged(verdict, METRIC_BY_NAME[entry.metric], entry, today)
    return found.status, found.reason


def test_a_known_regression_within_its_limit_is_acknowledged_up_to_its_last_day() -> None:
    assert judged() == (
        Status.ACKNOWLEDGED,
        "because of denoise_step_ms; known, up to 105 ms until 2026-12-01, @octocat looks after it: "
        "https://example.org/issues/7",
    )
    assert judged(measured=105.0)[0] is Status.ACKNOWLEDGED


def test_what_gets_worse_than_the_limit_is_red_again() -> None:
    assert judged(measured=105.1) == (
        Status.REGRESSED,
        "because of denoise_step_ms; worse than the acknowledged 105 ms (https://example.org/issues/7)",
    )


def test_the_day_after_the_last_one_it_is_red_again() -> None:
    assert judged(DAY_AFTER) == (
        Status.REGRESSED,
        "because of denoise_step_ms; it was put up with until 2026-12-01 (https://example.org/issues/7)",
    )


@pytest.mark.parametrize("status", [Status.PASS, Status.IMPROVED])
def test_an_entry_that_is_no_longer_needed_is_red_so_that_it_goes(status: Status) -> None:
    found, reason = judged(status=status)
    assert (found, found.is_green) == (Status.STALE, False)
    assert "remove the acknowledgement (https://example.org/issues/7)" in reason


@pytest.mark.parametrize(
    ("metric", "interval_pct", "status"),
    [
        # Of a slowdown of 2.5 %, near what three processes can show, every second night is green.
        ("denoise_step_ms", (0.4, 2.9), Status.PASS),
        ("denoise_step_ms", (-0.1, 2.0), Status.STALE),
        ("speedup_vs_bf16", (-2.9, -0.4), Status.PASS),
        ("speedup_vs_bf16", (0.4, 2.9), Status.STALE),
        ("denoise_step_ms", None, Status.STALE),
    ],
)
def test_noise_that_hides_a_slowdown_is_no_reason_for_its_entry_to_go(
    metric: str, interval_pct: tuple[float, float] | None, status: Status
) -> None:
    entry = msgspec.structs.replace(ENTRY, metric=metric)

    def green(today: date) -> Status:
        return judged(today, entry, metric=metric, status=Status.PASS, ci_pct=interval_pct)[0]

    assert green(LAST_DAY) is status
    assert green(DAY_AFTER) is Status.STALE  # nothing keeps it any longer


def test_a_slowdown_that_noise_hides_is_said_to_be_still_acknowledged() -> None:
    _, reason = judged(status=Status.PASS, ci_pct=(0.4, 2.9))
    assert reason == (
        "because of denoise_step_ms; within the limit and still worse than the baseline: the acknowledgement "
        "(https://example.org/issues/7) stays"
    )


@pytest.mark.parametrize(
    "status",
    [Status.INCONCLUSIVE, Status.INVALID, Status.NO_BASELINE, Status.SURPRISE, Status.NOT_COMPARED],
)
def test_any_other_verdict_stays_as_it_is(status: Status) -> None:
    assert judged(status=status) == (status, "because of denoise_step_ms")


@pytest.mark.parametrize(
    ("metric", "limit", "measured", "status"),
    [
        ("speedup_vs_bf16", 1.9, 1.95, Status.ACKNOWLEDGED),  # higher is better
        ("speedup_vs_bf16", 1.9, 1.89, Status.REGRESSED),
        ("graph_breaks", 2.0, 2.0, Status.ACKNOWLEDGED),  # exact: from the baseline, 0, to the limit
        ("graph_breaks", 2.0, 1.0, Status.ACKNOWLEDGED),
        ("graph_breaks", 2.0, 3.0, Status.REGRESSED),
    ],
)
def test_worse_is_what_the_metric_says(metric: str, limit: float, measured: float, status: Status) -> None:
    entry = msgspec.structs.replace(ENTRY, metric=metric, limit=limit)
    assert judged(entry=entry, metric=metric, measured=measured, baseline=0.0)[0] is status
