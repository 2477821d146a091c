"""The status of a whole case: its failure, or the worst of its verdicts; pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from perf_tests.harness.runs.record import (
    REASON_OF_PROGRESS,
    Progress,
    Run,
    Status,
    Verdict,
    status_of,
)
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.metrics.spec import Rule

SEVERITY = (
    Status.CRASH,
    Status.TIMEOUT,
    Status.OOM,
    Status.NUMERICS,
    Status.LOAD,
    Status.UNPROVEN,
    Status.REGRESSED,
    Status.SURPRISE,
    Status.INVALID,
    Status.INCONCLUSIVE,
    Status.NO_BASELINE,
    Status.STALE,
    Status.NOT_RUN,
    Status.ACKNOWLEDGED,
    Status.UNSUPPORTED,
    Status.NOT_COMPARED,
    Status.IMPROVED,
    Status.PASS,
)
"""Worst first."""

DECLARED = frozenset({Status.UNSUPPORTED, Status.NOT_RUN, Status.INVALID})
"""Statuses of a whole case that no verdict can improve."""


LEADING = (
    Rule.EXACT,
    Rule.EXPECTED_RANGE,
    Rule.EXPECTED_OF_LAYERS,
    Rule.PER_LAYER,
    Rule.WITHIN_TOLERANCE,
    Rule.PER_PAIR,
    Rule.CONFIRMED,
    Rule.NOISY,
)
"""Rules, those first whose verdict names a cause rather than an effect of it."""


def leading(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """`verdicts`, the worst status first, and of one status those that name a cause."""
    return sorted(verdicts, key=lambda each: (SEVERITY.index(each.status), by_rule(each.metric)))


@cache
def by_rule(metric: str) -> int:
    """The place of the rule of `metric` among those that lead; behind all of them without one."""
    known = METRIC_BY_NAME.get(metric)
    return LEADING.index(known.rule) if known and known.rule in LEADING else len(LEADING)


def is_green_without_verdicts(run: Run, *, is_required: bool) -> bool:
    """Whether measuring `run` ended in a way that leaves the session green; its verdicts do not count.

    `is_required`: the platform requires its scheme, or a baseline shows that it was supported.
    """
    if run.failure is None:
        return run.status is not Status.NOT_RUN
    return run.status is Status.UNSUPPORTED and not is_required


def overall(run: Run) -> tuple[Status, str]:
    """The status of the case of `run`, and why; the reason is empty for PASS only."""
    if run.failure is not None:
        return status_of(run.failure), run.failure.message
    if run.status.is_error:
        return run.status, run.reason
    found = [(each.status, f"{each.metric}: {each.reason}") for each in leading(run.verdicts)]
    if run.status in DECLARED:
        found.append((run.status, run.reason))
    if not found:
        return Status.INCONCLUSIVE, REASON_OF_PROGRESS[Progress.MEASURED]
    status, reason = min(found, key=lambda each: SEVERITY.index(each[0]))
    return status, "" if status is Status.PASS else reason
