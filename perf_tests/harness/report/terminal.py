"""The table of verdicts that a session ends with, and the sentences around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from perf_tests.harness.baselines.files import Entry
from perf_tests.harness.report.wording import format_change, format_value
from perf_tests.harness.runs.record import Run, Status, Verdict

HEADER = ("case", "metric", "baseline", "now", "change", "limit", "verdict")
NUMBERS = frozenset(HEADER[2:6])

SHOWN = "shown"
"""Printed in place of a verdict: the metric was measured, but no test of this session judges it."""

NOT_MEASURED = frozenset({Status.INVALID, Status.UNSUPPORTED, Status.NOT_RUN})

Cells = tuple[str, ...]
"""One line of a table, cell by cell."""


def table(runs: Sequence[Run], units: Mapping[str, str]) -> list[str]:
    """One line per verdict, then one per metric that no test judges; for a case that could not be measured as
    asked, first a line with its status and the reason.

    `units` maps metric names to their units. Empty without runs.
    """
    if not runs:
        return []
    return aligned([HEADER, *(row for run in runs for row in _rows(run, units))], right=NUMBERS)


def error_rates(noisy_metrics: int, level: float) -> str:
    """A sentence that bounds how often unchanged code turns a run red; `level` is the error level of each
    metric, as a fraction."""
    return (
        f"{noisy_metrics} noisy metrics at a level of {level * 100:.3g} % each: unchanged code turns one of "
        f"them red in at most {noisy_metrics * level * 100:.3g} % of the runs"
    )


def provisional(runs: Iterable[Run], entries: Mapping[str, Entry]) -> list[str]:
    """The ids of the cases judged by a provisional baseline; `entries` maps case ids to baselines."""
    return [run.id for run in runs if run.verdicts and run.id in entries and entries[run.id].provisional]


def not_compared(runs: Iterable[Run]) -> list[str]:
    """How many metrics the baselines say nothing about, because they are of another stack, and which; empty
    where there are none."""
    found = [
        f"  {run.id}: {verdict.metric}: {verdict.reason}"
        for run in runs
        for verdict in run.verdicts
        if verdict.status is Status.NOT_COMPARED
    ]
    heading = f"{Status.NOT_COMPARED.value} with the baseline of another stack: {len(found)}"
    return [heading, *found] if found else []


def aligned(rows: Sequence[Cells], *, right: Iterable[str]) -> list[str]:
    """`rows` as lines with two spaces between columns; the first row is the header, and the columns whose
    header is in `right` are right-aligned."""
    right_headers = frozenset(right)
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right_aligned = [column[0] in right_headers for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(row, widths, right_aligned, strict=True)
        ).rstrip()
        for row in rows
    ]


def _rows(run: Run, units: Mapping[str, str]) -> list[Cells]:
    rows = [_status_row(run)] if _is_not_measured(run) else []
    rows += [_verdict_row(verdict, units.get(verdict.metric, "")) for verdict in run.verdicts]
    judged = {verdict.metric for verdict in run.verdicts}
    shown = [(name, value) for name, value in run.measured.items() if name not in judged]
    rows += [_shown_row(name, value, units.get(name, "")) for name, value in shown]
    return [(run.id if number == 0 else "", *row) for number, row in enumerate(rows)]


def _is_not_measured(run: Run) -> bool:
    return run.status.is_error or run.status in NOT_MEASURED or not run.verdicts


def _status_row(run: Run) -> Cells:
    reason = " ".join((run.failure.message if run.failure else run.reason).split())
    return ("-",) * 5 + (": ".join(filter(None, (run.status.value, reason))),)


def _shown_row(metric: str, value: float, unit: str) -> Cells:
    return (metric, "-", format_value(value, unit), "-", "-", SHOWN)


def _verdict_row(verdict: Verdict, unit: str) -> Cells:
    return (
        verdict.metric,
        format_value(verdict.baseline, unit),
        format_value(verdict.measured, unit),
        _change(verdict, unit),
        format_value(verdict.limit, unit),
        verdict.status.value,
    )


def _change(verdict: Verdict, unit: str) -> str:
    if unit == "dB" and verdict.measured is not None and verdict.baseline is not None:
        return f"{verdict.measured - verdict.baseline:+.2f} dB"
    return format_change(verdict.change_pct)
