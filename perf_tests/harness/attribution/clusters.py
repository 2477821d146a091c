"""Which red cases are attributed together, and which of them are measured for all; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perf_tests.harness.runs.plan import BUILD
from perf_tests.harness.runs.record import Comparison, Run, Status, Verdict
from perf_tests.harness.verdicts import ab_clauses, ab_comparison
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.metrics.spec import Better, Group, Metric, Reader

MAX_REPRESENTATIVES = 3
"""Cases that are measured in other stacks, a session: a diagonal takes about six minutes of a card."""
OF_ONE_PROCESS = frozenset({Reader.BUILD, Reader.EVERY_SAMPLE, Reader.OUTPUTS, Reader.LAYERS})
"""Readers of metrics that one process alone tells, without a reference and without noise."""
FAILS = Metric(
    name=BUILD, units="", better=Better.EXACT, group=Group.QUANTIZATION, reader=Reader.BUILD, gates={}
)
"""Whether a case fails, as if it were a metric: 1 where it does as with the new stack, 0 where it works."""
ATTRIBUTED_FAILURES = frozenset(
    {FailureKind.LOAD, FailureKind.UNPROVEN, FailureKind.OOM, FailureKind.CRASH, FailureKind.NUMERICS}
)
"""Not a hang, which would cost each further stack its whole timeout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """A red metric of one case."""

    run: Run
    case: Case
    metric: Metric
    """For a noisy one the time that pairs compare."""
    compared: Verdict | None = None
    """What pairs said of the time; None where they said nothing, and for what is exact."""
    comparison: Comparison | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What the suspects of a cluster have in common."""
        recipe = self.case.build.recipe
        return recipe.scheme.id, recipe.compile.value, self.metric.name

    @property
    def is_failure(self) -> bool:
        """Whether the case could not be measured as asked."""
        return self.metric is FAILS

    @property
    def is_time(self) -> bool:
        """Whether pairs of processes are needed to tell anything about it."""
        return self.metric.is_noisy

    @property
    def is_confirmed(self) -> bool:
        """Whether the good stack is better on this card today; of what is exact, that is still to be seen."""
        return not self.is_time or (self.compared is not None and self.compared.status is Status.REGRESSED)

    @property
    def score(self) -> float:
        """How certain the change is: of a time in its own errors, of what is exact in percent."""
        if self.is_failure:
            return math.inf
        if self.compared is None or self.compared.ci_pct is None:
            judged = {each.metric: each for each in self.run.verdicts}
            ratios = (each for name, each in judged.items() if METRIC_BY_NAME[name].of == self.metric.name)
            verdict = judged.get(self.metric.name) or next(ratios)  # of a time, only a ratio may gate
            return abs(verdict.change_pct or 0.0)
        low, high = self.compared.ci_pct
        return abs(self.compared.change_pct or 0.0) / (high - low) if high > low else math.inf

    @property
    def seconds(self) -> float:
        """What one process of the case takes, about."""
        return math.fsum(self.run.processes[0].build.seconds.values()) if self.run.processes else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Suspects that are alike in scheme, compile mode and metric."""

    suspects: tuple[Suspect, ...]
    """The confirmed ones first, of these the most certain one."""
    measured: Suspect | None
    """The one that is measured for all; None where none is."""

    @property
    def members(self) -> tuple[str, ...]:
        """The ids of the cases, the one that stands for all first."""
        first = self.measured or self.suspects[0]
        return first.run.id, *(each.run.id for each in self.suspects if each.run.id != first.run.id)


def suspects(
    runs: Iterable[Run], cases: Mapping[str, Case], comparisons: Mapping[str, Comparison]
) -> tuple[Suspect, ...]:
    """Every failed case, and every regressed metric of others, that something can be found out about; once a
    case and time."""
    found: dict[tuple[str, str], Suspect] = {}
    for run in runs:
        if run.id not in cases:
            continue
        if run.failure is not None:
            if _is_the_stacks(run.failure):
                found[run.id, BUILD] = Suspect(run=run, case=cases[run.id], metric=FAILS)
            continue
        for verdict in run.verdicts:
            if verdict.status is Status.REGRESSED:
                suspect = _suspect(run, cases[run.id], METRIC_BY_NAME[verdict.metric], comparisons)
                if suspect is not None:
                    found.setdefault((run.id, suspect.metric.name), suspect)
    return tuple(found.values())


def _is_the_stacks(failure: Failure) -> bool:
    """Whether a process of another stack would fail alike, if the stack were to blame.

    What the parent finds out about pictures at the end is nothing that one process alone tells.
    """
    by_parent = failure.phase is Phase.INSPECT and failure.kind is not FailureKind.UNPROVEN
    return failure.kind in ATTRIBUTED_FAILURES and not failure.excuse and not by_parent


def _suspect(run: Run, case: Case, metric: Metric, comparisons: Mapping[str, Comparison]) -> Suspect | None:
    time = ab_comparison.time_of(metric)
    if time is None:
        is_alone = metric.reader in OF_ONE_PROCESS
        return Suspect(run=run, case=case, metric=metric) if is_alone else None
    comparison = comparisons.get(run.id)
    compared = ab_clauses.verdict_on(comparison, time) if comparison else None
    return Suspect(run=run, case=case, metric=time, compared=compared, comparison=comparison)


def clusters(found: Iterable[Suspect]) -> tuple[Cluster, ...]:
    """The clusters of the suspects, what is exact first, then those that are cheapest to measure.

    A case that stands for one cluster stands for each further one that it is in: it is measured once.
    """
    grouped: dict[tuple[str, ...], list[Suspect]] = {}
    for each in sorted(found, key=lambda each: (each.is_confirmed, each.score), reverse=True):
        alike = (*each.key, each.run.status.value if each.is_failure else "")
        grouped.setdefault(alike, []).append(each)
    by_certainty = sorted(grouped.values(), key=lambda group: (group[0].is_time, -group[0].score))
    chosen: set[str] = set()
    built = []
    for group in by_certainty:
        measured = _representative(group, chosen)
        chosen |= {measured.run.id} if measured else set()
        built.append(Cluster(suspects=tuple(group), measured=measured))
    return tuple(sorted(built, key=_cost))


def _representative(group: list[Suspect], chosen: set[str]) -> Suspect | None:
    confirmed = [each for each in group if each.is_confirmed]
    known = next((each for each in confirmed if each.run.id in chosen), None)
    if known is not None or len(chosen) < MAX_REPRESENTATIVES:
        return known or next(iter(confirmed), None)
    return None


def _cost(cluster: Cluster) -> tuple[bool, float]:
    first = cluster.measured or cluster.suspects[0]
    return first.is_time, first.seconds if cluster.measured else 0.0
