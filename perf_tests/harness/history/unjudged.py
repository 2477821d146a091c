"""Metrics that night after night gives no verdict on: nobody sees them regress; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perf_tests.harness.history.files import StoredNight
from perf_tests.harness.history.night import BUILD
from perf_tests.harness.runs.record import Status

NIGHTS = 3
UNJUDGED = frozenset({Status.NOT_RUN, Status.INVALID, Status.INCONCLUSIVE, Status.NO_BASELINE})
"""Neither red nor green, for a reason that is not the code's."""


def unjudged(nights: Sequence[StoredNight]) -> dict[str, frozenset[Status]] | None:
    """Case -> why its metrics had no verdict, for the cases of which one had none in any of the last nights.

    `nights` are those that count, the oldest first; None for fewer than `NIGHTS`, which say nothing. Attempts
    of one night are one: what any of them judged was judged. A last night that never came to a case judged
    nothing of it.
    """
    attempts: dict[str, list[Mapping[tuple[str, str], str]]] = {}
    for stored in nights:
        attempts.setdefault(stored.night.night, []).append(_statuses(stored))
    last = list(attempts.values())[-NIGHTS:]
    if len(last) < NIGHTS:
        return None
    found: dict[str, set[Status]] = {}
    for case, metric in dict.fromkeys(pair for night in last for attempt in night for pair in attempt):
        statuses = [_status(night, case, metric) for night in last]
        told = {Status(status) for status in statuses if status in UNJUDGED}
        if all(status in UNJUDGED for status in statuses[:-1]) and statuses[-1] in (*UNJUDGED, None):
            found.setdefault(case, set()).update(told)
    return {case: frozenset(told) for case, told in found.items()}


def _status(night: Sequence[Mapping[tuple[str, str], str]], case: str, metric: str) -> str | None:
    """That of the last of its attempts that gave a verdict; of the last one where none did."""
    statuses = [each.get((case, metric), each.get((case, BUILD))) for each in night]
    known = [status for status in statuses if status is not None]
    return next((each for each in reversed(known) if each not in UNJUDGED), known[-1] if known else None)


def _statuses(stored: StoredNight) -> Mapping[tuple[str, str], str]:
    """(Case, metric) -> status; a case that was not measured has that of its build alone."""
    return {(row.case, row.metric): row.status for row in stored.rows}
