"""The tables of verdicts that a session ends with, and the sentences around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from perf_tests.harness.attribution.symptoms import red
from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.report.causes import Cause
from perf_tests.harness.report.wording import clipped, flat, format_change, format_value
from perf_tests.harness.runs.record import Run, Status, Verdict

HEADER = ("case", "metric", "baseline", "now", "change", "limit", "verdict")
NUMBERS = frozenset(HEADER[2:6])

SHOWN = "shown"
"""Printed in place of a verdict: the metric was measured, but no test of this session judges it."""

BY_PRIORITY = ("case", "verdict", "change", "metric", "now", "baseline", "limit")
"""The columns of the overview; the last ones are left out first where the width does not suffice."""
LEAST_COLUMNS = 4
HEADLINES = (
    *("denoise_step_ms", "train_step_ms", "device_latency_s", "latency_s", "time_ratio_vs_fp32"),
    "quantize_s",
)
"""The metric shown of a case about which there is nothing else to say: the first that was judged."""

NOT_COMPARED = f"{Status.NOT_COMPARED.value} with the baselines"
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


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its colour, as pytest's `write_line` names it; empty for none."""

    text: str
    colour: str = ""


def overview(blocks: Sequence[Block], width: int, *, further: int, green: bool) -> list[Line]:
    """What is red, what moved beyond its noise, and one line for each other case; none is longer than
    `width`. The reddest are last, next to what explains them.

    Where more than `further` lines are about further metrics of cases that have one already, each case has
    one. Without `green`, those that are green and have not moved are counted. Empty without cases.
    """
    if not blocks:
        return []
    if sum(len(block.rows) - 1 for block in blocks) > further:
        blocks = [block.first_only() for block in blocks]
    listed = [block for block in blocks if green or block.order != UNMOVED]
    ordered = sorted(listed, key=lambda block: block.order)
    texts = fitting([BY_PRIORITY, *(row for block in ordered for row in block.rows)], width)
    colours = ["", *(block.colour for block in ordered for _ in block.rows)]
    lines = [Line(text, colour) for text, colour in zip(texts, colours, strict=True)]
    unlisted = len(blocks) - len(listed)
    counted = f"cases that are green and have not moved: {unlisted}; --perf-table=all lists them"
    return [*lines, Line(clipped(counted, width))] if unlisted else lines


def fitting(rows: Sequence[Cells], width: int) -> list[str]:
    """`rows` as lines of at most `width`: as many columns as there is room for, but at least `LEAST_COLUMNS`,
    of which the last is clipped where it must be."""
    for columns in range(len(rows[0]), LEAST_COLUMNS - 1, -1):
        lines = aligned([row[:columns] for row in rows], right=NUMBERS)
        if max(map(len, lines)) <= width:
            return lines
    return [clipped(line, width) for line in lines]


@dataclass(frozen=True, slots=True)
class Block:
    """The lines about one case."""

    order: int
    """Larger is printed later."""
    colour: str
    rows: tuple[Cells, ...]

    def first_only(self) -> Block:
        """One line, which says how many are left out."""
        first, further = self.rows[0], len(self.rows) - 1
        if not further:
            return self
        return Block(self.order, self.colour, ((first[0], f"{first[1]} +{further}", *first[2:]),))


def blocks_of(runs: Sequence[Run], causes: Sequence[Cause], units: Mapping[str, str]) -> list[Block]:
    """The lines about each case: the number of its worst cause stands with each that is red.

    `units` maps metric names to their units.
    """
    numbers: dict[str, int] = {}
    for number, cause in enumerate(causes, start=1):
        for run in cause.runs:
            numbers.setdefault(run.id, number)
    return [_block(run, numbers.get(run.id), units) for run in runs]


def _block(run: Run, number: int | None, units: Mapping[str, str]) -> Block:
    found, moved = red(run), [each for each in run.verdicts if _has_moved(each)]
    if number is not None:
        rows = [_brief(run, each, units, f"[{number}] {each.status.value}") for each in found]
        if not rows or _is_not_measured(run):
            # ERROR(oom) is called so in the title of its cause.
            failed = run.status.value.removeprefix("ERROR(").removesuffix(")")
            rows = [(run.id, f"[{number}] {failed}", *("-",) * 5)]
        return Block(2 * MAX_CAUSES - number, "red", tuple(rows))
    if moved:
        rows = [_brief(run, each, units, f"{each.status.value}, moved") for each in moved]
        return Block(1, "yellow", tuple(rows))
    return Block(UNMOVED, "", (_headline(run, units),))


UNMOVED = 0
"""The order of a case about which there is nothing to say."""
MAX_CAUSES = 10_000
"""More than there can be: what the order of causes is counted down from."""


def _has_moved(verdict: Verdict) -> bool:
    """Whether a green metric moved by more than its noise explains, at the error level of the session."""
    interval = verdict.family_ci_pct
    moved = interval is not None and not interval[0] <= 0 <= interval[1]
    return verdict.status.is_green and (moved or verdict.status is Status.IMPROVED)


def _headline(run: Run, units: Mapping[str, str]) -> Cells:
    status = run.status.value
    by_metric = {each.metric: each for each in run.verdicts}
    shown = next((by_metric[name] for name in HEADLINES if name in by_metric), None)
    return (run.id, status, *("-",) * 5) if shown is None else _brief(run, shown, units, status)


def _brief(run: Run, verdict: Verdict, units: Mapping[str, str], outcome: str) -> Cells:
    metric, baseline, now, change, limit, _ = _verdict_row(verdict, units.get(verdict.metric, ""))
    return (run.id, outcome, change, metric, now, baseline, limit)


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
    """How many values the baselines say nothing about, which, and why; empty where there are none."""
    found = [
        f"  {run.id}: {verdict.metric}: {verdict.reason}"
        for run in runs
        for verdict in run.verdicts
        if verdict.status is Status.NOT_COMPARED
    ]
    heading = f"{NOT_COMPARED}: {len(found)}"
    return [heading, *found] if found else []


def acknowledged(runs: Iterable[Run]) -> list[str]:
    """A sentence for each known regression that keeps nothing red; it must never go unsaid."""
    return [
        f"ACKNOWLEDGED, not green: {verdict.metric} of {run.id} on {run.platform}: {flat(verdict.reason)}"
        for run in runs
        for verdict in run.verdicts
        if verdict.status is Status.ACKNOWLEDGED
    ]


def not_compared_briefly(runs: Iterable[Run], width: int) -> list[str]:
    """One line that counts the metrics which the baselines say nothing about; empty where there are none."""
    counted = Counter(
        verdict.metric for run in runs for verdict in run.verdicts if verdict.status is Status.NOT_COMPARED
    )
    if not counted:
        return []
    named = ", ".join(f"{metric} ({count})" for metric, count in counted.most_common())
    return [clipped(f"{NOT_COMPARED}: {counted.total()}: {named}", width)]


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
