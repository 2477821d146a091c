"""What of a run other people's databases may have: what was measured, proven and undisturbed; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from perf_tests.harness.rebaseline.candidates import CASES, reference_of
from perf_tests.harness.runs.record import Comparison, Progress, Run, RunRecord, Status, Verdict
from perf_tests.harness.stats import observations
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.metrics.spec import Metric

FINISHED = "was not measured to its end"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One metric of one case."""

    case: Case
    run: Run
    metric: Metric
    verdict: Verdict
    values: tuple[float, ...]
    """One for each process, in the units of the metric; at least one."""

    @property
    def median(self) -> float:
        """What was judged."""
        assert self.verdict.measured is not None, "_measured() leaves out what was not measured"
        return self.verdict.measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Emittable:
    """A run, divided into what may be told and what may not."""

    measurements: tuple[Measurement, ...]
    left_out: tuple[str, ...]
    """One phrase for each case of which nothing is told."""


def emittable(record: RunRecord) -> Emittable:
    """What of `record` may be told to others.

    Raises UsageError for a fire drill, also where faults were injected into one case only: its numbers were
    planted. And where nothing is left.
    """
    planted = list(dict.fromkeys(each.id for each in _everything(record) if each.injected))
    if planted:
        more = f" and {len(planted) - 1} more" if len(planted) > 1 else ""
        raise UsageError(
            f"this is a fire drill: faults were injected into {planted[0]}{more}; no number of it is emitted"
        )
    why_not = {run.id: why for run in record.cases if (why := _why_not(run)) is not None}
    found = tuple(
        measurement for run in record.cases if run.id not in why_not for measurement in _measured(run, record)
    )
    if not found:
        raise UsageError("the run holds no case that was measured, proven and judged: nothing can be emitted")
    return Emittable(measurements=found, left_out=tuple(f"{case}: {why}" for case, why in why_not.items()))


def _everything(record: RunRecord) -> Iterator[Run | Comparison]:
    yield from (*record.cases, *record.references)
    yield from record.comparisons
    yield from (diagonal.comparison for diagonal in record.diagonals)


def _why_not(run: Run) -> str | None:
    if run.id not in CASES:
        return "the matrix has no such case; use the checkout that measured it"
    if run.progress is not Progress.JUDGED:
        return FINISHED
    if run.failure is not None or run.status.is_error or run.status is Status.INVALID or not run.processes:
        return run.status.value
    return None


def _measured(run: Run, record: RunRecord) -> Iterator[Measurement]:
    reference = reference_of(run, record)
    for verdict in run.verdicts:
        metric = METRIC_BY_NAME.get(verdict.metric)
        if metric is None or verdict.measured is None or verdict.status is Status.INVALID:
            continue
        values = observations.observe(metric, run, reference).values
        yield Measurement(
            case=CASES[run.id].case,
            run=run,
            metric=metric,
            verdict=verdict,
            values=values or (verdict.measured,),
        )
