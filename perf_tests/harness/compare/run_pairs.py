"""Two run records in, the verdicts of a session out, one record being the baseline of the other; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from perf_tests.harness.baselines.entry import Accepted
from perf_tests.harness.rebaseline import candidates
from perf_tests.harness.rebaseline.candidates import CASES, RunFile
from perf_tests.harness.runs.record import Run, RunRecord, Status, Verdict
from perf_tests.harness.stats import observations
from perf_tests.harness.stats.sequential_bounds import metric_level
from perf_tests.harness.verdicts.case_status import overall
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.harness.verdicts.judge import has_loaded_its_caches, judge_metric
from perf_tests.harness.verdicts.noisy import Significance
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.platforms import PLATFORM_BY_ID, Noise

SAME, REGRESSED, UNDECIDED = 0, 1, 2
"""Exit codes: same or better, regressed, cannot tell."""
NO_WORSE = frozenset({Status.PASS, Status.IMPROVED, Status.SURPRISE, Status.NOT_COMPARED})
"""Statuses of verdicts that say nothing bad; where all are NOT_COMPARED, they say nothing at all."""
UNMEASURED = frozenset({Status.UNSUPPORTED, Status.NOT_RUN})
"""Statuses of a case that was not measured without having failed."""
PROVENANCE = "base"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunComparison:
    """A candidate judged against its base."""

    runs: tuple[Run, ...]
    """The cases that were compared, in the candidate's order, with the verdicts against the base."""
    not_compared: tuple[str, ...]
    """One sentence for each case that could not be compared."""
    noisy_metrics: int
    """How many noisy metrics were tested."""
    level: float
    """The error probability that each of them was tested at."""

    @property
    def code(self) -> int:
        """`REGRESSED` where any case has, `UNDECIDED` where any is or none was compared, else `SAME`."""
        statuses = {status for run in self.runs for status in _statuses(run)}
        if Status.REGRESSED in statuses or any(status.is_error for status in statuses):
            return REGRESSED
        if statuses - {Status.NOT_COMPARED} and statuses <= NO_WORSE and not self.not_compared:
            return SAME
        return UNDECIDED


def compare(
    base: RunFile, candidate: RunRecord, noise: Mapping[str, Mapping[str, Noise]], max_processes: int
) -> RunComparison:
    """Judge the cases of `candidate` against those of `base`.

    `noise` maps platform ids to the noise of each noisy metric. A verdict that would take more processes than
    the candidate holds, up to `max_processes`, is INCONCLUSIVE.
    """
    before = {run.id: run for run in base.record.cases}
    now = {run.id: run for run in candidate.cases}
    not_compared = {
        case: why
        for case in dict.fromkeys((*now, *before))
        if (why := _why_not_compared(before.get(case), now.get(case))) is not None
    }
    compared = [
        run
        for run in candidate.cases
        if run.id not in not_compared and not _is_in_neither(before[run.id], run)
    ]
    noisy = sum(metric.is_noisy for run in compared for metric in _metrics(run, before[run.id]))
    level = metric_level(max(1, noisy))
    return RunComparison(
        runs=tuple(
            _judged(
                run,
                candidate,
                before[run.id],
                base,
                Significance(noise=noise[run.platform], level=level, max_processes=max_processes),
            )
            for run in compared
        ),
        not_compared=tuple(f"{case}: {why}" for case, why in not_compared.items()),
        noisy_metrics=noisy,
        level=level,
    )


def _is_in_neither(before: Run, now: Run) -> bool:
    """Whether neither run measured the case, for the same reason, so that there is no difference to judge."""
    return now.status in UNMEASURED and before.status is now.status


def _why_not_compared(before: Run | None, now: Run | None) -> str | None:
    if before is None or now is None:
        return f"only the {'candidate' if before is None else 'base'} has it"
    if now.id not in CASES or now.platform not in PLATFORM_BY_ID:
        return "the matrix has no such case: use the checkout that measured it"
    if before.platform != now.platform:
        return f"the base was measured on {before.platform}, the candidate on {now.platform}"
    if before.injected:
        return f"faults were injected into the base: {', '.join(before.injected)}"
    if _is_in_neither(before, now):
        return None
    # A candidate that failed where the base did not has regressed, which is a result.
    return _unmeasured(before, "base") or (None if now.status.is_error else _unmeasured(now, "candidate"))


def _unmeasured(run: Run, name: str) -> str | None:
    if run.failure is not None or run.status.is_error or run.status in UNMEASURED:
        return f"the {name} is {run.status.value}: {run.failure.message if run.failure else run.reason}"
    return None if run.processes else f"the {name} has no process"


def _metrics(run: Run, before: Run) -> tuple[Metric, ...]:
    """What is judged of `run`: if it is unproven, what needs no verification; if it failed, nothing."""
    case, platform = CASES[run.id].case, PLATFORM_BY_ID[run.platform]
    if run.failure is not None and run.status is not Status.UNPROVEN:
        return ()
    return tuple(
        metric
        for metric in gated_metrics(case, platform)
        if not (run.failure and metric.needs_verification) and not _is_without(metric, run, before)
    )


def _is_without(metric: Metric, *runs: Run) -> bool:
    """Whether one of `runs` loaded its compile caches from files, and so was spared from compiling cold.

    One that merely does not report it is judged, and lacks it.
    """
    return metric.cold_caches_only and any(
        observations.observe(metric, run, None).missing and has_loaded_its_caches(run) for run in runs
    )


def _judged(run: Run, record: RunRecord, before: Run, base: RunFile, significance: Significance) -> Run:
    accepted = Accepted(
        entry=candidates.entry_of(before, base.record, PROVENANCE),
        provenance=candidates.provenance_of(before, (base,), reason="the base of the comparison"),
    )
    verdicts = tuple(
        judge_metric(
            metric,
            case=CASES[run.id].case,
            platform=PLATFORM_BY_ID[run.platform],
            run=run,
            reference=candidates.reference_of(run, record),
            accepted=accepted,
            unit=run.processes[0].environment.unit,
            significance=significance,
        )
        for metric in _metrics(run, before)
    )
    # Only what was compared; everything else that was measured is in the record.
    judged = msgspec.structs.replace(run, verdicts=verdicts, measured={})
    status, reason = overall(judged)
    return msgspec.structs.replace(judged, status=status, reason=reason)


def _statuses(run: Run) -> Iterator[Status]:
    """The statuses of its verdicts; its own where it failed or has none."""
    if run.failure is not None or not run.verdicts:
        yield run.status
    yield from (each.status for each in run.verdicts)


def explained(comparison: RunComparison) -> list[str]:
    """A line for each failure, each verdict that is not green, and each case that was not compared."""
    lines = [
        f"{run.id}: {each.metric} {each.status.value}: {each.reason}"
        for run in comparison.runs
        for each in _red(run)
    ]
    failures = [f"{run.id}: {run.status.value}: {run.reason}" for run in comparison.runs if run.failure]
    return [*failures, *lines, *(f"not compared: {sentence}" for sentence in comparison.not_compared)]


def _red(run: Run) -> list[Verdict]:
    return [each for each in run.verdicts if not each.status.is_green]
