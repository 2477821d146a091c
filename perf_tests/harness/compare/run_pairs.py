"""Two run records beside each other: verdicts as in a session, one of them for baselines; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from perf_tests.harness.baselines.files import Accepted
from perf_tests.harness.rebaseline import candidates
from perf_tests.harness.rebaseline.candidates import CASES, Source
from perf_tests.harness.runs.record import Run, RunRecord, Status, Verdict
from perf_tests.harness.stats import observations
from perf_tests.harness.stats.sequential_bounds import metric_level
from perf_tests.harness.verdicts import judge
from perf_tests.harness.verdicts.judge import Significance
from perf_tests.tables.metrics import Metric
from perf_tests.tables.platforms import PLATFORM_BY_ID, Noise

SAME, REGRESSED, REFUSED = 0, 1, 2
"""Exit codes: the same or better, regressed, cannot tell."""
BETTER = frozenset({Status.PASS, Status.IMPROVED, Status.SURPRISE})
UNTOLD = frozenset({Status.UNSUPPORTED, Status.NOT_RUN})
"""Statuses of a case that was not measured, which is nobody's fault."""
PROVENANCE = "base"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a candidate is beside its base."""

    runs: tuple[Run, ...]
    """The candidate's cases that were compared, in its order, with the verdicts against the base."""
    refusals: tuple[str, ...]
    """A sentence for each case that could not be compared."""
    noisy_metrics: int
    level: float
    """Of each of them."""

    @property
    def code(self) -> int:
        """`REGRESSED` where anything is, else `REFUSED` where anything or all of it cannot be told."""
        statuses = {status for run in self.runs for status in _statuses(run)}
        if Status.REGRESSED in statuses or any(status.is_error for status in statuses):
            return REGRESSED
        return SAME if statuses and statuses <= BETTER and not self.refusals else REFUSED


def compare(
    base: Source, candidate: RunRecord, noise: Mapping[str, Mapping[str, Noise]], max_processes: int
) -> Outcome:
    """Judge the cases of `candidate` against those of `base`.

    `noise` is by platform and metric; a verdict that takes more processes than the candidate holds, up to
    `max_processes`, is INCONCLUSIVE.
    """
    before = {run.id: run for run in base.record.cases}
    now = {run.id: run for run in candidate.cases}
    refusals = {
        case: why
        for case in dict.fromkeys((*now, *before))
        if (why := _refusal(before.get(case), now.get(case))) is not None
    }
    # What neither could be measured is the same in both.
    compared = [
        run
        for run in candidate.cases
        if run.id not in refusals and not (run.status in UNTOLD and before[run.id].status is run.status)
    ]
    noisy = sum(metric.noisy for run in compared for metric in _metrics(run, before[run.id]))
    level = metric_level(max(1, noisy))
    return Outcome(
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
        refusals=tuple(f"{case}: {why}" for case, why in refusals.items()),
        noisy_metrics=noisy,
        level=level,
    )


def _refusal(before: Run | None, now: Run | None) -> str | None:
    """Why the case cannot be compared."""
    if before is None or now is None:
        return f"it is in the {'candidate' if before is None else 'base'} only"
    if now.id not in CASES or now.platform not in PLATFORM_BY_ID:
        return "the matrix has no such case: compare with the checkout that measured it"
    if before.platform != now.platform:
        return f"the base was measured on {before.platform}, the candidate on {now.platform}"
    if before.injected:
        return f"faults were injected into the base: {', '.join(before.injected)}"
    if before.status in UNTOLD and now.status is before.status:
        return None
    # A candidate that failed where the base did not is told: it regressed.
    return _unmeasured(before, "base") or (None if now.status.is_error else _unmeasured(now, "candidate"))


def _unmeasured(run: Run, name: str) -> str | None:
    if run.failure is not None or run.status.is_error or run.status in UNTOLD:
        return f"the {name} is {run.status.value}: {run.failure.message if run.failure else run.reason}"
    return None if run.processes else f"the {name} has no process"


def _metrics(run: Run, before: Run) -> tuple[Metric, ...]:
    """What is judged: of a run that failed only what needs no proof, where that was what failed."""
    case, platform = CASES[run.id].case, PLATFORM_BY_ID[run.platform]
    if run.failure is not None and run.status is not Status.UNPROVEN:
        return ()
    return tuple(
        metric
        for metric in judge.gated_metrics(case, platform)
        if not (run.failure and metric.proven_only) and not _is_without(metric, run, before)
    )


def _is_without(metric: Metric, *runs: Run) -> bool:
    """Whether nothing compiled cold, which is no defect: a session may load its compile caches from files."""
    return metric.cold_only and any(observations.observe(metric, run, None).missing for run in runs)


def _judged(run: Run, record: RunRecord, before: Run, base: Source, significance: Significance) -> Run:
    accepted = Accepted(
        entry=candidates.entry_of(before, base.record, PROVENANCE),
        provenance=candidates.provenance_of(before, base, reason="the base of the comparison"),
    )
    verdicts = tuple(
        judge.judge(
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
    # Only what was compared: what a run measured besides is in its record.
    judged = msgspec.structs.replace(run, verdicts=verdicts, measured={})
    status, reason = judge.overall(judged)
    return msgspec.structs.replace(judged, status=status, reason=reason)


def _statuses(run: Run) -> Iterator[Status]:
    """Those of its verdicts, and its own where it failed."""
    if run.failure is not None or not run.verdicts:
        yield run.status
    yield from (each.status for each in run.verdicts)


def explained(outcome: Outcome) -> list[str]:
    """A line for each verdict that is not the same or better, each failure, and each case without."""
    lines = [
        f"{run.id}: {each.metric} {each.status.value}: {each.reason}"
        for run in outcome.runs
        for each in _red(run)
    ]
    failures = [f"{run.id}: {run.status.value}: {run.reason}" for run in outcome.runs if run.failure]
    return [*failures, *lines, *(f"not compared: {refusal}" for refusal in outcome.refusals)]


def _red(run: Run) -> list[Verdict]:
    return [each for each in run.verdicts if not each.status.is_green]
