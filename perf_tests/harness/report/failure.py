"""One failed test explained on one screen: what failed, against what, what has changed, what to do."""

from __future__ import annotations

from pathlib import PurePath

from perf_tests.harness.baselines.entry import Accepted
from perf_tests.harness.fidelity.heatmaps import Drawing, EarlierHeatMaps, HeatMaps, NoHeatMaps
from perf_tests.harness.report import remedies
from perf_tests.harness.report.wording import flat, format_value, wrapped
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.harness.stats import observations
from perf_tests.protocol.messages import Phase
from perf_tests.protocol.reports import Environment
from perf_tests.tables.metrics.spec import Better, Metric, Rule

MAX_CHANGES = 8
MAX_DETAIL_LINES = 10
MAX_LOGS = 4
MAX_GUARDS = 3
GUARDED = frozenset({"recompiles", "compiled_graphs"})
"""Metrics that move when a guard fails."""

OUTCOMES = {
    Status.REGRESSED: "regressed",
    Status.SURPRISE: "improved without explanation",
    Status.STALE: "is green, though acknowledged as regressed",
    Status.NO_BASELINE: "has no baseline",
    Status.INCONCLUSIVE: "is inconclusive",
    Status.INVALID: "is invalid",
    Status.IMPROVED: "improved",
    Status.PASS: "passed",
}
STATISTICS = {
    Rule.NOISY: "mean of {processes}",
    Rule.EXACT: "one of {processes}",
    Rule.EXPECTED_RANGE: "one of {processes}",
    Rule.EXPECTED_OF_LAYERS: "the worst layer of {processes}",
    Rule.PER_LAYER: "the layer that moved most, of {processes}",
    Rule.PER_PAIR: "mean of {pairs} of {processes}",
}
"""Rule -> what is printed of the values of a run; by any other rule, their median."""

ADVICE = {
    Phase.IMPORT: "choose an interpreter that has the stack under test: --perf-python=PYTHON",
}
"""Phase in which a worker failed -> what to do about it, where its own message cannot say."""


def explain(
    *,
    run: Run,
    verdict: Verdict,
    metric: Metric,
    accepted: Accepted | None,
    environment: Environment | None,
    heat_maps: Drawing | None,
    run_path: str,
    is_answered: bool = False,
) -> str:
    """The failure text of one verdict: at most 24 lines.

    `environment` is the one the run was measured in; `heat_maps` were written for this verdict, None where
    pictures do not explain it; `run_path` is the folder of run.json. `is_answered` says that other stacks
    have shown where it comes from, so that no next step is guessed.
    """
    units = metric.units
    if accepted is not None and environment is not None:
        accepted = accepted.fitting(metric, environment.settings)
    lines = [
        f"{run.id} on {run.platform}: {metric.name} {_outcome(verdict, metric)}",
        *_line("measured", format_value(verdict.measured, units), _spread(run, metric)),
        *(
            _line("baseline", format_value(verdict.baseline, units), _origin(accepted, environment))
            if metric.has_baseline
            else _line("expected", metric.name, "implied by the tables, not by a baseline")
        ),
        *_line("limit", format_value(verdict.limit, units), verdict.reason),
        *_guards(run, metric),
        *_changed_since(accepted, environment),
        *([] if is_answered else remedies.next_step(run, verdict, metric, accepted, environment)),
        *_pictures(heat_maps),
        *_injected(run),
        *remedies.accept(run, verdict.status, metric, accepted, run_path),
        *_where(run, run_path),
    ]
    return "\n".join(lines)


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
        *wrapped("reason", flat(failure.message if failure else run.reason) or "none was given"),
        *advice,
        *_unquantized(run),
        *(f"    | {line}" for line in details[-MAX_DETAIL_LINES:]),
        *_injected(run),
        *_where(run, run_path),
    ]
    return "\n".join(lines)


# Lines


def _line(name: str, value: str, remark: str) -> list[str]:
    return wrapped(f"{name:<10} {value:<14}", remark)


def _outcome(verdict: Verdict, metric: Metric) -> str:
    if verdict.status is not Status.REGRESSED or metric.better is not Better.EXACT:
        return OUTCOMES.get(verdict.status, verdict.status.value)
    if metric.badness is None:
        return OUTCOMES[Status.REGRESSED]
    if verdict.measured is None or verdict.baseline is None:
        return OUTCOMES[Status.REGRESSED]
    is_worse = metric.badness(verdict.measured) > metric.badness(verdict.baseline)
    return OUTCOMES[Status.REGRESSED] if is_worse else "moved"


def _spread(run: Run, metric: Metric) -> str:
    # The run of the reference is not at hand, so ratios to it have no value per process here.
    values = observations.observe(metric, run, None).values
    of_pairs = metric.rule is Rule.PER_PAIR
    count = 1 if of_pairs else len(values) or len(run.processes)
    said = STATISTICS.get(metric.rule, "median of {processes}").format(
        processes=_count(count, "process", "processes"), pairs=_count(len(values), "pair", "pairs")
    )
    if count == 1 and not of_pairs:
        said = said.removeprefix("one of ")
    if len(values) < 2 or metric.rule in (Rule.PER_LAYER, Rule.EXPECTED_OF_LAYERS):
        return said
    lowest, highest = min(values), max(values)
    return f"{said}, {format_value(lowest, '')} to {format_value(highest, metric.units)}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


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
    changes = remedies.differences(accepted.provenance, environment)
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
    return wrapped("checks", f"of {expected} modules to quantize, these are not as asked for: {names}")


def _guards(run: Run, metric: Metric) -> list[str]:
    """Why dynamo compiled again, in its own words."""
    if metric.name not in GUARDED:
        return []
    failed = dict.fromkeys(flat(each) for process in run.processes for each in process.build.guard_failures)
    return [line for guard in list(failed)[:MAX_GUARDS] for line in wrapped("guard", guard)]


def _pictures(heat_maps: Drawing | None) -> list[str]:
    match heat_maps:
        case HeatMaps():
            return [f"  pictures   {heat_maps.listed}: {heat_maps.where}"]
        case EarlierHeatMaps():
            return [f"  pictures   {heat_maps.files}: drawn by the session that measured them"]
        case NoHeatMaps():
            return [f"  pictures   none: {heat_maps.reason}"]
        case None:
            return []


def _injected(run: Run) -> list[str]:
    if not run.injected:
        return []
    return [f"  injected   {', '.join(run.injected)}: a fire drill is never accepted as a baseline"]


def _where(run: Run, run_path: str) -> list[str]:
    logs = [str(PurePath(run_path, process.log)) for process in run.processes if process.log]
    return [
        f"  reproduce  pytest --perf-case '{run.id}'",
        f"  log        {' '.join(logs[-MAX_LOGS:]) or PurePath(run_path, 'logs')}",
    ]
