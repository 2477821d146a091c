"""Metrics that night after night gives no verdict on: nobody sees them regress; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perf_tests.harness.history.files import StoredNight
from perf_tests.harness.history.night import BUILD
from perf_tests.harness.runs.record import Status

NIGHTS = 3
UNJUDGED = frozenset({Status.NOT_RUN, Status.INVALID, Status.INCONCLUSIVE, Status.NO_BASELINE})
"""Neither red nor green, for a reason that is not the code's."""


def unjudged(nights: Sequence[StoredNight]) -> dict[str, frozenset[Status]]:
    """Case -> why its metrics had no verdict, for the cases of which one had none in any of the last nights.

    `nights` are those that count, the oldest first; fewer than `NIGHTS` say nothing.
    """
    last = [_statuses(stored) for stored in nights[-NIGHTS:]]
    if len(last) < NIGHTS:
        return {}
    found: dict[str, set[Status]] = {}
    for case, metric in last[-1]:
        statuses = [each.get((case, metric), each.get((case, BUILD))) for each in last]
        told = {Status(status) for status in statuses if status in UNJUDGED}
        if all(status in UNJUDGED for status in statuses):
            found.setdefault(case, set()).update(told)
    return {case: frozenset(told) for case, told in found.items()}


def _statuses(stored: StoredNight) -> Mapping[tuple[str, str], str]:
    """(Case, metric) -> status; a case that was not measured has that of its build alone."""
    return {(row.case, row.metric): row.status for row in stored.rows}
