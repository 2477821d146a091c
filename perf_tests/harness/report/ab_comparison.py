"""A/B comparisons of two stacks in words: lines of a failure text, and the table that ends a session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from perf_tests.harness.records.attributions import Attribution, Blame
from perf_tests.harness.report.terminal import aligned
from perf_tests.harness.report.wording import flat, format_change, format_value, wrapped
from perf_tests.harness.runs.plan import BUILD
from perf_tests.harness.runs.record import Comparison, Status, Verdict
from perf_tests.harness.verdicts import ab_clauses, ab_comparison
from perf_tests.tables.metrics.spec import Metric

TITLE = "A/B on this device: candidate (B, --perf-python) against stable (A, --perf-against)"
HEADER = ("case", "time", "stable", "candidate", "change", "95 % interval", "pairs", "schedule", "verdict")
NUMBERS = frozenset(HEADER[2:7])
MAX_DIFFERENCES = 8


def explanation(verdict: Verdict, metric: Metric, comparison: Comparison) -> list[str]:
    """Lines of a failure text: what the comparison says about `verdict`, and how the stacks differ.

    Empty where it says nothing about `verdict`.
    """
    clause = ab_clauses.said(verdict, metric, comparison)
    if clause is None:
        return []
    schedule = f"{comparison.schedule}: {comparison.schedule_reason}"
    return [
        *wrapped("against", clause),
        *wrapped("stacks", differing(comparison)),
        *wrapped("schedule", schedule),
    ]


def whose(run_id: str, metric: Metric | None, attributions: Iterable[Attribution]) -> list[str]:
    """Lines of a failure text: which package made `metric` of the case red; empty where nothing says so.

    `metric` is None for a case that could not be measured as asked.
    """
    found = _attributions_of(run_id, metric, attributions)
    return [line for each in found for line in wrapped("whose", _answer(run_id, each))]


def is_answered(
    run_id: str, metric: Metric, comparison: Comparison | None, attributions: Iterable[Attribution]
) -> bool:
    """Whether other stacks on the same card have shown that the code made the metric red, not the card."""
    found = None if comparison is None else ab_clauses.verdict_on(comparison, metric)
    if found is not None and found.status is Status.REGRESSED:
        return True
    blames = {each.blame for each in _attributions_of(run_id, metric, attributions)}
    return bool(blames - {Blame.NOT_REPRODUCED, Blame.UNKNOWN})


def _attributions_of(
    run_id: str, metric: Metric | None, attributions: Iterable[Attribution]
) -> list[Attribution]:
    name = BUILD if metric is None else (ab_comparison.time_of(metric) or metric).name
    return [each for each in attributions if each.metric == name and run_id in each.members]


def _answer(run_id: str, attribution: Attribution) -> str:
    if run_id == attribution.case:
        return attribution.sentence
    return f"as {attribution.case}, which was measured for all that are alike: {attribution.sentence}"


def attributed(attributions: Iterable[Attribution]) -> list[str]:
    """A line for each cluster of red cases: which package made them red."""
    return [
        f"whose is {each.metric} of {each.scheme} {each.compile} ({_count(each)}): {flat(each.sentence)}"
        for each in attributions
    ]


def _count(attribution: Attribution) -> str:
    count = len(attribution.members)
    return attribution.case if count == 1 else f"{count} cases, measured was {attribution.case}"


def table(comparisons: Sequence[Comparison], units: Mapping[str, str]) -> list[str]:
    """A row per case and time, or with the reason why a case has none, then how the stacks differ.

    `units` maps metric names to their units. Empty without comparisons.
    """
    if not comparisons:
        return []
    rows = [row for comparison in comparisons for row in _rows(comparison, units)]
    stacks = dict.fromkeys(f"{each.against}: {differing(each)}" for each in comparisons)
    return [TITLE, *aligned([HEADER, *rows], right=NUMBERS), *_error_rate(comparisons), *stacks]


def differing(comparison: Comparison) -> str:
    """How the two stacks differ, stable -> candidate, as a clause."""
    if comparison.stable is None or comparison.candidate is None:
        return "nothing is known about the stable stack"
    changes = ab_comparison.differences(comparison.stable, comparison.candidate)
    if not changes:
        return "the two stacks are the same in everything on record"
    more = len(changes) - MAX_DIFFERENCES
    listed = ", ".join(changes[:MAX_DIFFERENCES])
    return f"stable -> candidate: {listed}{f' and {more} more' if more > 0 else ''}"


def _error_rate(comparisons: Sequence[Comparison]) -> list[str]:
    levels = [each.level for each in comparisons if each.level is not None]
    if not levels:
        return []
    most_pct = 100 * max(levels)
    return [f"if the two stacks are equal, each time is red with a probability of at most {most_pct:.2g} %"]


def _rows(comparison: Comparison, units: Mapping[str, str]) -> Iterable[tuple[str, ...]]:
    pairs, schedule = str(len(comparison.pairs)), comparison.schedule.value
    if not comparison.verdicts:
        outcome = flat(f"{comparison.status.value}: {comparison.reason}")
        yield (comparison.id, "-", "-", "-", "-", "-", pairs, schedule, outcome)
    for number, verdict in enumerate(comparison.verdicts):
        unit = units.get(verdict.metric, "")
        yield (
            comparison.id if number == 0 else "",
            verdict.metric,
            format_value(verdict.baseline, unit),
            format_value(verdict.measured, unit),
            format_change(verdict.change_pct),
            _interval(verdict),
            pairs,
            schedule,
            verdict.status.value,
        )


def _interval(verdict: Verdict) -> str:
    if verdict.ci_pct is None:
        return "-"
    low, high = verdict.ci_pct
    return f"{low:+.2f} to {high:+.2f} %"
