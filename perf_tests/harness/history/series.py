"""One metric of one case over the nights: which compare, since when it is red, whether it drifts; pure.

A drift is looked for with CUSUM. The first `REFERENCE` nights have the mean that later ones are held against,
in units of the known noise. What a night is worse by, less `SLACK` of these, is summed up, never below zero;
beyond `BOUND` the series drifts, since the night after the sum was last zero. A night counts for at most
`MOST`, so that one disturbed night is no drift. It warns, and turns nothing red.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perf_tests.harness.history.files import StoredNight
from perf_tests.harness.history.night import METHODOLOGY, NightHeader, NightRow, is_of_card
from perf_tests.harness.runs.record import Status
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.metrics.spec import Better

REFERENCE = 15
SLACK, BOUND, MOST = 1.5, 5.0, 4.0
"""Of 208 rows over 60 quiet nights, one in 20 times any row warns; at a noise of 0.36 % a drift of 0.1 % a
night is warned of within 14 nights in 19 of 20."""
GREEN = frozenset({Status.PASS.value, Status.IMPROVED.value})
RED = frozenset(
    status.value
    for status in Status
    if status.is_error or status in (Status.REGRESSED, Status.SURPRISE, Status.ACKNOWLEDGED)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One night of a series."""

    night: NightHeader
    row: NightRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A night that is no part of the series."""

    night: NightHeader
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NightSeries:
    """One metric of one case, the oldest night first."""

    points: tuple[Point, ...]
    gaps: tuple[Gap, ...]


def series(nights: Iterable[StoredNight], case: str, metric: str) -> NightSeries:
    """What compares with the last night that has the metric; the others are gaps, each with its reason."""
    found: list[Point] = []
    gaps: list[Gap] = []
    for stored in nights:
        row = next((each for each in stored.rows if (each.case, each.metric) == (case, metric)), None)
        if row is None:
            gaps.append(Gap(night=stored.night, why="it was not measured"))
        elif not stored.night.counts:
            gaps.append(Gap(night=stored.night, why=f"the night does not count: {stored.night.why_not}"))
        else:
            found.append(Point(night=stored.night, row=row))
    points = []
    for point in found:
        why = _unlike(point, found[-1])
        if why is None:
            points.append(point)
        else:
            gaps.append(Gap(night=point.night, why=why))
    return NightSeries(points=tuple(points), gaps=tuple(sorted(gaps, key=lambda gap: gap.night.night)))


def _unlike(point: Point, last: Point) -> str | None:
    """Why a night does not compare with the last one; None where it does."""
    if point.night.methodology != METHODOLOGY:
        return f"it was measured by methodology {point.night.methodology}, now it is {METHODOLOGY}"
    if point.row.digest != last.row.digest:
        return f"it is another case: digest {point.row.digest[:12]}, now {last.row.digest[:12]}"
    if is_of_card(point.row.metric) and point.row.card != last.row.card:
        return f"it is of another card: {point.row.card}, now {last.row.card}"
    return None


# Since when


@dataclass(frozen=True, kw_only=True, slots=True)
class SinceWhen:
    """How long a metric has been red."""

    last_green: NightHeader | None
    """None where no night before it was green."""
    first_red: NightHeader
    nights: int
    """Red nights in a row, each once however often it was run; nights that say nothing neither count nor
    interrupt."""


def since_when(of: NightSeries) -> SinceWhen | None:
    """Since when the metric is red; None where the last night that says anything is green."""
    red: list[NightHeader] = []
    last_green: NightHeader | None = None
    for point in reversed(of.points):
        if point.row.status in GREEN:
            last_green = point.night
            break
        if point.row.status in RED:
            red.append(point.night)
    if not red:
        return None
    return SinceWhen(last_green=last_green, first_red=red[-1], nights=len({each.night for each in red}))


# Drifts


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftWarning:
    """A series that creeps for the worse."""

    since: NightHeader
    """About when it began: the night after which it was last as usual."""
    noticed: NightHeader
    change_pct: float
    """Of the last three nights against the reference."""


def drift(of: NightSeries, sd_pct: float) -> DriftWarning | None:
    """Whether the series drifts for the worse, where its nights scatter by `sd_pct` of one process.

    None where it does not, where it has too few nights, and for a metric that no direction is worse in.
    """
    measured = [point for point in of.points if point.row.value is not None and point.row.value > 0]
    metric = METRIC_BY_NAME[of.points[-1].row.metric] if of.points else None
    if metric is None or metric.better is Better.EXACT or len(measured) <= REFERENCE or sd_pct <= 0:
        return None
    sign = 1.0 if metric.better is Better.LOWER else -1.0
    logs = [sign * math.log(point.row.value or 1.0) for point in measured]
    noise = [sd_pct / 100 / math.sqrt(max(1, point.row.processes)) for point in measured]
    found = cusum(logs, noise)
    if found is None:
        return None
    since, noticed = found
    change = statistics.fmean(logs[-3:]) - statistics.fmean(logs[:REFERENCE])
    return DriftWarning(
        since=measured[since].night,
        noticed=measured[noticed].night,
        change_pct=math.expm1(sign * change) * 100,
    )


def cusum(logs: Sequence[float], noise: Sequence[float]) -> tuple[int, int] | None:
    """The index of the first value of a drift upwards, and of the value that shows it; None without one.

    `noise` is the standard deviation of each value.
    """
    reference = statistics.fmean(logs[:REFERENCE])
    of_reference = math.fsum(each**2 for each in noise[:REFERENCE]) / REFERENCE**2
    total, began = 0.0, REFERENCE
    for index in range(REFERENCE, len(logs)):
        score = (logs[index] - reference) / math.sqrt(noise[index] ** 2 + of_reference)
        total = max(0.0, total + min(MOST, max(-MOST, score)) - SLACK)
        if total == 0.0:
            began = index + 1
        if total > BOUND:
            return began, index
    return None
