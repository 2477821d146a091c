"""What a session is expected to cost: seconds per case and phase, and what they are based on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from perf_tests.harness.planning.cost_model import CostBasis
from perf_tests.harness.planning.schedule import Accuracy, CaseCost, Forecast
from perf_tests.harness.report.terminal import aligned
from perf_tests.harness.report.wording import clipped
from perf_tests.protocol.messages import Phase
from perf_tests.tables.platforms import Device, Platform

TITLES = {
    Device.CPU: "expected CPU seconds (host clock) on {platform}, {processes} per case",
    Device.CUDA: (
        "expected GPU seconds (host clock while a worker holds the GPU) on {platform}, {processes} per case"
    ),
}
BASES = {
    CostBasis.RECORDED: "recorded",
    CostBasis.ELSEWHERE: "recorded on another GPU",
    CostBasis.ESTIMATED: "estimated from {source}",
    CostBasis.GUESSED: "guessed from {source}",
    CostBasis.UNKNOWN: "unknown",
}
NOT_PAID, NOT_KNOWN = "-", "?"


def table(forecast: Forecast) -> list[str]:
    """For each platform: a line per case in the order of running, what is not known, and the total.

    `-` stands for a phase that the case does not go through, `?` for one of which no record says how long it
    takes. Empty without cases.
    """
    platforms = {cost.platform.id: cost.platform for cost in forecast.costs}
    return [line for platform in platforms.values() for line in _of_platform(forecast, platform)]


def accuracy(rows: Sequence[Accuracy]) -> list[str]:
    """How good the forecast was: a line per case, and the total of those that had an expectation.

    The last column is expected / spent. Empty without cases.
    """
    if not rows:
        return []
    expected = [row for row in rows if row.expected_s is not None]
    total = Accuracy(
        case="total",
        implicit=False,
        expected_s=math.fsum(row.expected_s or 0.0 for row in expected) if expected else None,
        spent_s=math.fsum(row.spent_s for row in expected or rows),
    )
    header = ("case", "expected", "spent", "ratio")
    return [
        "expected and spent seconds, all processes",
        *aligned([header, *(_compared(row) for row in (*rows, total))], right=header[1:]),
    ]


def accuracy_briefly(rows: Sequence[Accuracy], width: int) -> list[str]:
    """One line: how good the forecast was of the cases that had an expectation. Empty without any."""
    expected = [row for row in rows if row.expected_s is not None]
    if not expected:
        return []
    expected_s = math.fsum(row.expected_s or 0.0 for row in expected)
    spent_s = math.fsum(row.spent_s for row in expected)
    total = (
        f"{_count(len(expected), 'row')} of the plan: expected {expected_s:,.0f} s, spent {spent_s:,.0f} s"
    )
    return [clipped(f"{total}; --perf-table=all lists them", width)]


def _of_platform(forecast: Forecast, platform: Platform) -> Iterator[str]:
    costs = [cost for cost in forecast.costs if cost.platform.id == platform.id]
    phases = [phase for phase in Phase if any(phase in (*cost.seconds, *cost.missing) for cost in costs)]
    header = ("case", *phases, "total", "basis")
    total = ("total", *(_amount(costs, [phase]) for phase in phases), _amount(costs, phases), "")
    yield TITLES[platform.device].format(
        platform=platform.id, processes=_count(forecast.processes, "process")
    )
    yield from aligned([header, *(_cells(cost, phases) for cost in costs), total], right=header[1:-1])
    yield from _not_known(costs)
    yield _sentence(costs)


def _cells(cost: CaseCost, phases: Sequence[Phase]) -> tuple[str, ...]:
    amounts = (_amount([cost], [phase]) for phase in phases)
    basis = BASES[cost.basis].format(source=cost.source)
    return (_label(cost.case.id, cost.implicit), *amounts, _amount([cost], phases), basis)


def _amount(costs: Sequence[CaseCost], phases: Sequence[Phase]) -> str:
    """The seconds of `costs` in `phases`, marked where some are not known."""
    known = [cost.seconds[phase] for cost in costs for phase in phases if phase in cost.seconds]
    is_whole = not any(phase in cost.missing for cost in costs for phase in phases)
    parts = ([f"{math.fsum(known):,.1f}"] if known else []) + ([] if is_whole else [NOT_KNOWN])
    return "+".join(parts) or NOT_PAID


def _not_known(costs: Sequence[CaseCost]) -> Iterator[str]:
    unknown = [_label(cost.case.id, cost.implicit) for cost in costs if cost.basis is CostBasis.UNKNOWN]
    if unknown:
        yield f"not in the total, because the platform has no baselines: {', '.join(unknown)}"
    partly = [cost for cost in costs if cost.basis is not CostBasis.UNKNOWN]
    for phase in Phase:
        count = sum(phase in cost.missing for cost in partly)
        if count:
            yield f"not in the total, because no baseline has it: {phase} of {_count(count, 'case')}"


def _sentence(costs: Sequence[CaseCost]) -> str:
    implicit = sum(cost.implicit for cost in costs)
    counted = _count(len(costs) - implicit, "case")
    counted += f" and {_count(implicit, 'reference')}" if implicit else ""
    if not any(cost.seconds for cost in costs):
        return f"total not known: {counted}"
    total_s = math.fsum(seconds for cost in costs for seconds in cost.seconds.values())
    partly = ", without what is not known" if any(cost.missing for cost in costs) else ""
    return f"total {total_s:,.1f} s = {total_s / 60:,.1f} min{partly}: {counted}"


def _compared(row: Accuracy) -> tuple[str, ...]:
    expected = NOT_KNOWN if row.expected_s is None else f"{row.expected_s:,.1f}"
    ratio = NOT_KNOWN if row.ratio is None else f"{row.ratio:.2f}"
    return (_label(row.case, row.implicit), expected, f"{row.spent_s:,.1f}", ratio)


def _label(case_id: str, implicit: bool) -> str:
    return f"{case_id} (reference)" if implicit else case_id


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
