"""The status of a whole case: its failure, or the worst of its verdicts; pure."""

from __future__ import annotations

from perf_tests.harness.runs.record import REASON_OF_PROGRESS, Progress, Run, Status, status_of

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
    Status.NOT_RUN,
    Status.UNSUPPORTED,
    Status.IMPROVED,
    Status.PASS,
)
"""Worst first."""

DECLARED = frozenset({Status.UNSUPPORTED, Status.NOT_RUN, Status.INVALID})
"""Statuses of a whole case that no verdict can improve."""


def overall(run: Run) -> tuple[Status, str]:
    """The status of the case of `run`, and why; the reason is empty for PASS only."""
    if run.failure is not None:
        return status_of(run.failure), run.failure.message
    if run.status.is_error:
        return run.status, run.reason
    found = [(each.status, f"{each.metric}: {each.reason}") for each in run.verdicts]
    if run.status in DECLARED:
        found.append((run.status, run.reason))
    if not found:
        return Status.INCONCLUSIVE, REASON_OF_PROGRESS[Progress.MEASURED]
    status, reason = min(found, key=lambda each: SEVERITY.index(each[0]))
    return status, "" if status is Status.PASS else reason
