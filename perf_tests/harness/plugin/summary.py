"""What a session says in the terminal: the header before, the cost and the verdicts after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perf_tests.harness.execution import resuming
from perf_tests.harness.execution.machine import Target
from perf_tests.harness.plugin.ledger import BUILD
from perf_tests.harness.plugin.options import Options
from perf_tests.harness.plugin.selection import Selection
from perf_tests.harness.plugin.session import PerfSession
from perf_tests.harness.report import ab_comparison as ab_report
from perf_tests.harness.report import costs, terminal
from perf_tests.harness.report import plan as plan_report
from perf_tests.harness.runs.record import RunRecord
from perf_tests.tables.metrics.rows import METRICS, UNITS
from perf_tests.tables.metrics.spec import Group

Paragraph = Sequence[str]
"""Lines; an empty paragraph is not printed."""


def header(options: Options, target: Target) -> list[str]:
    """Where the numbers come from, and where they go."""
    lines = [
        f"perf: {target.problem or target.found}; run directory {options.out}; baselines {options.baselines}"
    ]
    if options.compile_cache is not None:
        cold = ", ".join(metric.name for metric in METRICS if metric.cold_caches_only)
        lines.append(f"perf: compile caches from {options.compile_cache}: {cold} is not judged")
    if options.against is not None:
        lines.append(
            f"perf: A/B of regressed times, and of those without a baseline, against {options.against}"
        )
    if options.autoquant_plans is not None:
        lines.append(f"perf: autoquant follows the plans in {options.autoquant_plans}")
    return lines


def performance(session: PerfSession, record: RunRecord, selection: Selection) -> Iterator[Paragraph]:
    """What the session cost, how likely a false alarm is, every verdict, and where the raw samples are."""
    judging = session.judging
    control = judging.control(record)
    if control is not None and control.moved:
        yield [control.text]
    if session.kept:
        yield [resuming.sentence(session.kept, len(selection.cases), record.created_at)]
    yield costs.table(record.cases, record.references)
    if session.options.show_plan:
        yield plan_report.accuracy(session.forecaster.accuracy(selection, record))
    if judging.noisy_metrics:
        yield [terminal.error_rates(judging.noisy_metrics, judging.level)]
    yield terminal.table(record.cases, UNITS)
    yield ab_report.table(record.comparisons, UNITS)
    yield terminal.not_compared(record.cases)
    provisional = terminal.provisional(record.cases, judging.entries())
    if provisional:
        yield [f"provisional baselines (fewer than 3 processes): {', '.join(provisional)}"]
    if not session.problem:
        yield [f"raw samples: {session.options.out}/run.json"]


def stopped(session: PerfSession) -> Paragraph:
    """What a session that was stopped has kept, and how to go on."""
    done, total = len(session.campaign.done), len(session.selection.cases)
    return [
        f"{done} of {total} cases are measured and kept in {session.options.out}, and every process of "
        "another case that was complete",
        f"go on with: {session.resuming_command}",
    ]


def uncollected(groups: Sequence[Group | None]) -> Paragraph:
    """One line per group of metrics that no test of the suite judges."""
    names = [BUILD if group is None else group.value for group in groups]
    return [f"no test was collected that judges {name}: is test_{name}.py there?" for name in names]


def by_case(pairs: Sequence[str]) -> Paragraph:
    """One line per case for pairs `case: metric`."""
    metrics: dict[str, list[str]] = {}
    for pair in pairs:
        case_id, _, metric = pair.partition(": ")
        metrics.setdefault(case_id, []).append(metric)
    return [f"{case_id}: {', '.join(names)}" for case_id, names in metrics.items()]
