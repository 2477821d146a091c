"""What one process of a stack says of a metric without noise; pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from perf_tests.harness.attribution.clusters import Suspect
from perf_tests.harness.attribution.findings import Findings, Scale
from perf_tests.harness.attribution.shares import StackChange
from perf_tests.harness.records.attributions import Amount, Corner
from perf_tests.harness.runs.record import Process, Status
from perf_tests.harness.stats import observations
from perf_tests.harness.verdicts import build_checks
from perf_tests.tables.metrics.spec import Metric
from perf_tests.tables.platforms import PLATFORM_BY_ID

WORKS, BROKEN = 0.0, 1.0
"""The values of `clusters.FAILS`."""


class CellError(Exception):
    """A stack in which the case cannot be measured as asked."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def value_in(suspect: Suspect, processes: Sequence[Process]) -> float:
    """The value of the metric in processes of one stack.

    Raises CellError where what they built contradicts the recipe: the number would be of something else, of
    another arithmetic for one. So it does where they do not tell it.
    """
    for process in processes:
        for contradiction in build_checks.contradictions(suspect.case, process.build)[:1]:
            raise CellError(Status.UNPROVEN.value, contradiction)
    if suspect.is_failure:
        return WORKS
    run = msgspec.structs.replace(suspect.run, processes=tuple(processes))
    observed = observations.observe(suspect.metric, run, None)
    if not observed.values:
        raise CellError(Status.INCONCLUSIVE.value, observed.missing or "")
    return statistics.median(observed.values)


def is_same(suspect: Suspect, good: float, new: float) -> bool:
    """Whether two values are within the tolerance of the metric, so that nothing has changed today."""
    gate = suspect.metric.gates.get(PLATFORM_BY_ID[suspect.run.platform].device)
    allowance = gate.tolerance.allowance(good) if gate else 0.0
    return abs(new - good) <= allowance


def exact_scale(metric: Metric, found: Findings) -> Scale:
    """How differences of the metric are written: with their sign, whichever is the worse."""
    values = found.values
    falls = Corner.GOOD in values and values[Corner.NEW] < values[Corner.GOOD]
    sign = -1 if falls else 1

    def amount(change: StackChange) -> Amount:
        value = sign * change.value + 0.0  # no minus zero
        return Amount(value=value, low=value, high=value)

    return Scale(amount=amount, digits="+,.6g", units=f" {metric.units}".rstrip())
