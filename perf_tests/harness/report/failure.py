"""One failed test explained on one screen: what failed, against what, what has changed, what to do."""

from __future__ import annotations

import math
import shlex
from pathlib import PurePath

from perf_tests.harness.baselines.files import Accepted, Provenance
from perf_tests.harness.fidelity.heatmaps import HeatMaps, NoHeatMaps
from perf_tests.harness.runs import environments
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.stats import observations
from perf_tests.protocol.messages import Phase
from perf_tests.protocol.reports import Environment
from perf_tests.tables.metrics.spec import Metric

SIGNIFICANT_DIGITS = 4
MAX_DECIMALS = 4
MAX_CHANGES = 8
MAX_DETAIL_LINES = 10
MAX_LINE_LENGTH = 160
MAX_LOGS = 4
WHOLE = ("  accept", "  record", "  pictures", "  reproduce", "  log")
"""How lines begin that hold commands and paths to copy, and so are not shortened."""

OUTCOMES = {
    Status.REGRESSED: "regressed",
    Status.SURPRISE: "improved without explanation",
    Status.NO_BASELINE: "has no baseline",
    Status.INCONCLUSIVE: "is inconclusive",
    Status.INVALID: "is invalid",
    Status.IMPROVED: "improved",
    Status.PASS: "passed",
}
ACCEPTABLE = {
    Status.REGRESSED: "accept",
    Status.SURPRISE: "accept",
    Status.IMPROVED: "accept",
    Status.NO_BASELINE: "record",
}
"""Status that can be accepted -> the verb for it. All other statuses have no number that could be trusted."""

ADVICE = {
    Phase.IMPORT: "choose an interpreter that has the stack under test: --perf-python=PYTHON",
}
"""Phase in which a worker failed -> what to do about it, where its own message cannot say."""


def format_value(value: float | None, unit: str) -> str:
    """`value` and its unit, with four significant digits, or all digits of counts and bytes; `-` for None."""
    if value is None:
        return "-"
    return f"{_digits(value, exact=unit in ('', 'B'))} {unit}".rstrip()


def format_change(change_pct: float | None) -> str:
    """A signed percentage with two decimals; `-` for None."""
    return "-" if change_pct is None else f"{change_pct:+.2f} %"


def explain(
    *,
    run: Run,
    verdict: Verdict,
    metric: Metric,
    accepted: Accepted | None,
    environment: Environment | None,
    heat_maps: HeatMaps | NoHeatMaps | None,
    run_path: str,
) -> str:
    """The failure text of one verdict: at most 24 lines.

    `environment` is the one the run was measured in; `heat_maps` were written for this verdict, None where
    pictures do not explain it; `run_path` is the folder of run.json.
    """
    outcome = OUTCOMES.get(verdict.status, verdict.status.value)
    lines = [
        f"{run.id} on {run.platform}: {metric.name} {outcome}",
        _line("measured", format_value(verdict.measured, metric.units), _spread(run, metric)),
        _line("baseline", format_value(verdict.baseline, metric.units), _origin(accepted, environment))
        if metric.has_baseline
        else _line("expected", metric.name, "implied by the tables, not by a baseline"),
        _line("limit", format_value(verdict.limit, metric.units), verdict.reason),
        *_changed_since(accepted, environment),
        *_pictures(heat_maps),
        *_injected(run),
        *(_accept(run, verdict.status, run_path) if metric.has_baseline else ()),
        *_where(run, run_path),
    ]
    return "\n".join(_cut(line) for line in lines)


def explain_failure(*, run: Run, run_path: str) -> str:
    """The failure text of a case that could not be measured as asked: at most 24 lines.

    `run_path` is the folder of run.json.
    """
    failure = run.failure
    advice = [f"  do         {ADVICE[failure.phase]}"] if failure and failure.phase in ADVICE else []
    when = f" while the worker was in phase {failure.phase.value!r}" if failure else ""
    # Where an interpreter could not start, the reason says it all: it is the last line of its output.
    details = failure.details.rstrip().splitlines() if failure and not advice else []
    lines = [
        f"{run.id} on {run.platform}: {run.status.value}{when}",
        f"  reason     {_flat(failure.message if failure else run.reason) or 'none was given'}",
        *advice,
        *_unquantized(run),
        *(f"    | {line}" for line in details[-MAX_DETAIL_LINES:]),
        *_injected(run),
        *_where(run, run_path),
    ]
    return "\n".join(_cut(line) for line in lines)


def differences(provenance: Provenance, environment: Environment) -> list[str]:
    """`name then -> now` for everything on record that differs between a baseline and a run."""
    gpu = environment.gpu
    then = {
        "python": provenance.python,
        "GPU": provenance.gpu,
        "unit": provenance.unit,
        "driver": provenance.driver,
        "power limit": _watts(provenance.power_limit_w),
    }
    now = {
        "python": environment.python,
        "GPU": gpu.name if gpu else None,
        "unit": environment.unit,
        "driver": gpu.driver if gpu else None,
        "power limit": _watts(gpu.power_limit_w if gpu else None),
    }
    return [
        *environments.differences(provenance.packages, environment.packages),
        *environments.differences(then, now),
        *environments.differences(provenance.settings, environment.settings),
    ]


# Numbers


def _digits(value: float, *, exact: bool) -> str:
    if not math.isfinite(value):
        return str(value)
    if value == 0 or (exact and float(value).is_integer()):
        return f"{value:,.0f}"
    decimals = SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 0), MAX_DECIMALS)}f}"


def _watts(power_limit_w: float | None) -> str | None:
    return None if power_limit_w is None else f"{power_limit_w:.0f} W"


# Lines


def _line(name: str, value: str, remark: str) -> str:
    return f"  {name:<10} {value:<14} {_flat(remark)}".rstrip()


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cut(line: str) -> str:
    if len(line) <= MAX_LINE_LENGTH or line.startswith(WHOLE):
        return line
    return line[: MAX_LINE_LENGTH - 3] + "..."


def _spread(run: Run, metric: Metric) -> str:
    # The run of the reference is not at hand, so ratios to it have no value per process here.
    values = observations.observe(metric, run, None).values
    count = len(values) or len(run.processes)
    statistic = "mean" if metric.is_noisy else "median"
    processes = f"{statistic} of {count} process{'es' if count != 1 else ''}"
    if len(values) < 2:
        return processes
    lowest, highest = min(values), max(values)
    return f"{processes}, {format_value(lowest, '')} to {format_value(highest, metric.units)}"


def _origin(accepted: Accepted | None, environment: Environment | None) -> str:
    if accepted is None:
        return "none recorded"
    entry, provenance = accepted.entry, accepted.provenance
    recorded_on = provenance.recorded_at[: len("2026-01-31")]
    stack = (
        f"{name} {provenance.packages[name]}" for name in ("torch", "torchao") if name in provenance.packages
    )
    unit = (
        ()
        if environment is None
        else ("same unit" if environment.unit == provenance.unit else f"another unit ({provenance.unit})",)
    )
    provisional = (f"provisional: {entry.processes} of 3 processes",) if entry.provisional else ()
    return ", ".join((recorded_on, *stack, f'"{provenance.reason}"', *unit, *provisional))


def _changed_since(accepted: Accepted | None, environment: Environment | None) -> list[str]:
    if accepted is None or environment is None:
        return []
    changes = differences(accepted.provenance, environment)
    if not changes:
        return ["  changed since the baseline: nothing on record"]
    more = len(changes) - MAX_CHANGES
    return [
        "  changed since the baseline:",
        *(f"    {change}" for change in changes[:MAX_CHANGES]),
        *([f"    and {more} more"] if more > 0 else []),
    ]


def _unquantized(run: Run) -> list[str]:
    quantization = run.processes[-1].build.quantization if run.processes else None
    if quantization is None or not quantization.unquantized:
        return []
    names = ", ".join(quantization.unquantized[:3])
    expected = quantization.expected_modules
    return [f"  checks     of {expected} modules to quantize, these are not as asked for: {names}"]


def _pictures(heat_maps: HeatMaps | NoHeatMaps | None) -> list[str]:
    match heat_maps:
        case HeatMaps():
            return [f"  pictures   {heat_maps.listed}: {heat_maps.where}"]
        case NoHeatMaps():
            return [f"  pictures   none: {heat_maps.reason}"]
        case None:
            return []


def _injected(run: Run) -> list[str]:
    if not run.injected:
        return []
    return [f"  injected   {', '.join(run.injected)}: a fire drill is never accepted as a baseline"]


def _accept(run: Run, status: Status, run_path: str) -> list[str]:
    if status not in ACCEPTABLE or run.injected:
        return []
    command = f"python tools/rebaseline.py apply {shlex.quote(run_path)} --only '{run.id}'"
    return [f'  {ACCEPTABLE[status]}     {command} --reason "..." --write']


def _where(run: Run, run_path: str) -> list[str]:
    logs = [str(PurePath(run_path, process.log)) for process in run.processes if process.log]
    return [
        f"  reproduce  pytest --perf-case '{run.id}'",
        f"  log        {' '.join(logs[-MAX_LOGS:]) or PurePath(run_path, 'logs')}",
    ]
