"""What an A/B comparison adds to the reason of a verdict, or says where there is no baseline; pure."""

from __future__ import annotations

import msgspec

from perf_tests.harness.runs.record import Comparison, Status, Verdict
from perf_tests.harness.verdicts.ab_comparison import change_in_words, is_asked, stable_versions, time_of
from perf_tests.tables.metrics.spec import Metric


def applied(verdict: Verdict, metric: Metric, comparison: Comparison) -> Verdict:
    """`verdict` with what the comparison adds: whether a regression is confirmed, and a verdict where there
    is no baseline. All other verdicts are returned as they are.

    A regression stays one: without confirmation it is the device, or the baseline, that moved.
    """
    if not is_asked(verdict, metric):
        return verdict
    if verdict.status is Status.REGRESSED:
        return _with_clause(verdict, verdict, confirmation(comparison, metric))
    found = verdict_on(comparison, metric)
    if found is None:
        status = Status.INVALID if comparison.status is Status.INVALID else Status.INCONCLUSIVE
        found = msgspec.structs.replace(verdict, status=status)
    return _with_clause(found, verdict, substitute(comparison, metric))


def said(verdict: Verdict, metric: Metric, comparison: Comparison) -> str | None:
    """The clause that `applied` has added to the reason of `verdict`; None where it has not."""
    clauses = (confirmation(comparison, metric), substitute(comparison, metric))
    return next((clause for clause in clauses if verdict.reason.endswith(clause)), None)


def confirmation(comparison: Comparison, metric: Metric) -> str:
    """Whether the time behind `metric` is longer than the stable stack's, too: a clause."""
    found = verdict_on(comparison, metric)
    if found is None or found.status is Status.INCONCLUSIVE:
        return f"neither confirmed nor refuted: {found.reason if found else comparison.reason}"
    assert found.change_pct is not None, "what is decided has a change"
    change = change_in_words(found.change_pct, found.ci_pct)
    stable = stable_versions(comparison)
    named = "" if found.metric == metric.name else f" of {found.metric}"
    if found.status is Status.REGRESSED:
        return (
            f"confirmed: also {found.change_pct:.2g} % slower than {stable} on this card, now "
            f"({change}{named})"
        )
    return (
        f"not confirmed: the stable stack ({stable}) is as slow on this card today ({change}{named}): the "
        "card or the baseline moved, not the code"
    )


def substitute(comparison: Comparison, metric: Metric) -> str:
    """What stands where a baseline is missing: a clause."""
    found = verdict_on(comparison, metric)
    if found is None:
        return f"the comparison with the stable stack gave no verdict: {comparison.reason}"
    return found.reason


def verdict_on(comparison: Comparison, metric: Metric) -> Verdict | None:
    """The comparison's verdict on the time behind `metric`; None where there is none."""
    time = time_of(metric)
    return next((each for each in comparison.verdicts if time and each.metric == time.name), None)


def _with_clause(judged: Verdict, before: Verdict, clause: str) -> Verdict:
    return msgspec.structs.replace(judged, reason=f"{before.reason}; {clause}")
