"""What a known regression does to the verdict on it; pure."""

from __future__ import annotations

from datetime import date

import msgspec

from perf_tests.harness.baselines.acknowledged import Acknowledgement
from perf_tests.harness.runs.record import Status, Verdict
from perf_tests.tables.metrics.spec import Better, Metric

GREEN = frozenset({Status.PASS, Status.IMPROVED})


def acknowledged(verdict: Verdict, metric: Metric, entry: Acknowledgement | None, today: date) -> Verdict:
    """`verdict`, or where its metric has an acknowledgement ACKNOWLEDGED in place of REGRESSED.

    It stays red where it is worse than the limit, and where the last day has passed. It becomes red where it
    is green, because the entry would hide the next regression; but not where noise alone may have made it
    green. Any other verdict is returned as it is.
    """
    if entry is None:
        return verdict
    if verdict.status in GREEN and today <= entry.until and _is_still_worse(verdict, metric):
        why = f"within the limit and still worse than the baseline: the acknowledgement ({entry.issue}) stays"
        return _said(verdict, verdict.status, why)
    if verdict.status in GREEN:
        why = f"remove the acknowledgement ({entry.issue}): it is green, and what comes next would be hidden"
        return _said(verdict, Status.STALE, why)
    if verdict.status is not Status.REGRESSED or verdict.measured is None:
        return verdict
    if today > entry.until:
        return _said(verdict, Status.REGRESSED, f"it was put up with until {entry.until} ({entry.issue})")
    limit = f"{entry.limit:g} {metric.units}".rstrip()
    if not _is_within(verdict.measured, verdict.baseline, metric, entry.limit):
        why = f"worse than the acknowledged {limit} ({entry.issue})"
        return _said(verdict, Status.REGRESSED, why)
    why = f"known, up to {limit} until {entry.until}, {entry.owner} looks after it: {entry.issue}"
    return _said(verdict, Status.ACKNOWLEDGED, why)


def _is_still_worse(verdict: Verdict, metric: Metric) -> bool:
    """Whether a noisy metric is worse by more than chance, though too little to be red: by less than the test
    can see, it is red one night and green the next."""
    if not metric.is_noisy or verdict.ci_pct is None:
        return False
    low, high = verdict.ci_pct
    return low > 0 if metric.better is Better.LOWER else high < 0


def _is_within(measured: float, baseline: float | None, metric: Metric, limit: float) -> bool:
    match metric.better:
        case Better.LOWER:
            return measured <= limit
        case Better.HIGHER:
            return measured >= limit
        case Better.EXACT:
            other = limit if baseline is None else baseline
            return min(limit, other) <= measured <= max(limit, other)


def _said(verdict: Verdict, status: Status, why: str) -> Verdict:
    return msgspec.structs.replace(verdict, status=status, reason=f"{verdict.reason}; {why}")
