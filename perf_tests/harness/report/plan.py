"""What a session is expected to cost: seconds per case and phase, and how they are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from perf_tests.harness.planning.cost_model import CostBasis
from perf_tests.harness.planning.schedule import Accuracy, CaseCost, Forecast
from perf_tests.harness.report.terminal import aligned
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
    CostBasis.ESTIMATED: "estimated from {source}",
    CostBasis.GUESSED: "guessed from {source}",
    CostBasis.UNKNOWN: "unknown",
}
NOT_PAID, NOT_KNOWN = "-", "?"


def table(plan: Forecast) -> list[str]:
    """For each platform: a line per case in the order of running, what is not known, the total.

    `-` stands for a phase that the case does not go through, `?` for one that no record tells of. Empty
    without cases.
    """
    platforms = {row.platform.id: row.platform for row in plan.rows}
    return [line for platform in platforms.values() for line in _of_platform(plan, platform)]


def accuracy(rows: Sequence[Accuracy]) -> list[str]:
    """How well the plan foresaw what was spent: a line per case, and the total of those with an expectation.

    The last column is expected / spent. Empty without cases.
    """
    if not rows:
        return []
    foreseen = [row for row in rows if row.expected_s is not None]
    total = Accuracy(
        case="total",
        implicit=False,
        expected_s=math.fsum(row.expected_s or 0.0 for row in foreseen) if foreseen else None,
        spent_s=math.fsum(row.spent_s for row in foreseen or rows),
    )
    header = ("case", "expected", "spent", "ratio")
    return [
        "expected and spent seconds, all processes",
        *aligned([header, *(_compared(row) for row in (*rows, total))], right=header[1:]),
    ]


def _of_platform(plan: Forecast, platform: Platform) -> Iterator[str]:
    rows = [row for row in plan.rows if row.platform.id == platform.id]
    phases = [phase for phase in Phase if any(phase in (*row.seconds, *row.missing) for row in rows)]
    header = ("case", *phases, "total", "basis")
    total = ("total", *(_amount(rows, [phase]) for phase in phases), _amount(rows, phases), "")
    yield TITLES[platform.device].format(platform=platform.id, processes=_count(plan.processes, "process"))
    yield from aligned([header, *(_cells(row, phases) for row in rows), total], right=header[1:-1])
    yield from _not_known(rows)
    yield _sentence(rows)


def _cells(row: CaseCost, phases: Sequence[Phase]) -> tuple[str, ...]:
    amounts = (_amount([row], [phase]) for phase in phases)
    basis = BASES[row.basis].format(source=row.source)
    return (_label(row.case.id, row.implicit), *amounts, _amount([row], phases), basis)


def _amount(rows: Sequence[CaseCost], phases: Sequence[Phase]) -> str:
    """The seconds of `rows` in `phases`, with a mark where some are not known."""
    known = [row.seconds[phase] for row in rows for phase in phases if phase in row.seconds]
    is_whole = not any(phase in row.missing for row in rows for phase in phases)
    parts = ([f"{math.fsum(known):,.1f}"] if known else []) + ([] if is_whole else [NOT_KNOWN])
    return "+".join(parts) or NOT_PAID


def _not_known(rows: Sequence[CaseCost]) -> Iterator[str]:
    unknown = [_label(row.case.id, row.implicit) for row in rows if row.basis is CostBasis.UNKNOWN]
    if unknown:
        yield f"not in the total, the platform has no baselines to tell from: {', '.join(unknown)}"
    partly = [row for row in rows if row.basis is not CostBasis.UNKNOWN]
    for phase in Phase:
        count = sum(phase in row.missing for row in partly)
        if count:
            yield f"not in the total, no baseline tells of it: {phase} of {_count(count, 'case')}"


def _sentence(rows: Sequence[CaseCost]) -> str:
    implicit = sum(row.implicit for row in rows)
    counted = _count(len(rows) - implicit, "case")
    counted += f" and {_count(implicit, 'reference')}" if implicit else ""
    if not any(row.seconds for row in rows):
        return f"total not known: {counted}"
    total_s = math.fsum(seconds for row in rows for seconds in row.seconds.values())
    partly = ", without what is not known" if any(row.missing for row in rows) else ""
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
