"""Attributes what is exact from four records, one of each stack, in which it need not be red."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from perf_tests.harness.attribution.attributing import Attributor, PairJudge
from perf_tests.harness.attribution.clusters import OF_ONE_PROCESS, Cluster, Suspect
from perf_tests.harness.attribution.exact import CellError
from perf_tests.harness.attribution.findings import Cells
from perf_tests.harness.records.attributions import Attribution, Corner
from perf_tests.harness.runs.record import Process, Run, RunRecord
from perf_tests.harness.verdicts.gates import gated_metrics, shown_metrics
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import PLATFORM_BY_ID


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedBench:
    """What four sessions have measured already: nothing is started."""

    records: Mapping[Corner, RunRecord]

    def cells(self) -> Cells:
        """The stacks, as the first workers of the sessions reported them."""
        return Cells(
            pythons={},
            packages={
                corner: record.environment.packages
                for corner, record in self.records.items()
                if record.environment is not None
            },
        )

    def problem(self, corner: Corner) -> str:
        """Why a stack has no record; empty where it has one."""
        return "" if corner in self.records else "there is no record of it"

    def compare(self, case_id: str, candidate: Corner, stable: Corner, judge: PairJudge) -> NoReturn:
        """Pairs are measured in a session, with `--perf-stacks`."""
        raise CellError("not asked", "times are not attributed from records: no pairs are in them")

    def alone(self, case_id: str, corner: Corner) -> Process:
        """The first process of the case in one record.

        Raises CellError where it has none, or the run failed.
        """
        run = self.run(case_id, corner)
        if run is None:
            raise CellError("not measured", f"the record of {corner} has no {case_id}")
        if run.failure is not None or not run.processes:
            raise CellError(run.status.value, run.reason)
        return run.processes[0]

    def run(self, case_id: str, corner: Corner) -> Run | None:
        """The run of a case in one record; None where it has none."""
        record = self.records[corner]
        return next((run for run in record.cases if run.id == case_id), None)


def attributions(
    bench: RecordedBench, cases: Mapping[str, Case], metric: str | None
) -> Iterator[Attribution]:
    """What of each case in the record of the new stack one process tells, and which package has moved it.

    `metric` limits it to one. What is the same in the new and the good record is left out, unless asked for.
    """
    attributor = Attributor(bench=bench, question=_no_pairs, twin=_no_twin)
    for run in bench.records[Corner.NEW].cases:
        case, platform = cases[run.id], PLATFORM_BY_ID[run.platform]
        for each in (*gated_metrics(case, platform), *shown_metrics(case, platform)):
            if each.reader not in OF_ONE_PROCESS or each.name != (metric or each.name):
                continue
            suspect = Suspect(run=run, case=case, metric=each)
            found = attributor.attribute(Cluster(suspects=(suspect,), measured=suspect))
            if metric is not None or (found.whole is not None and found.whole.value):
                yield found


def _no_pairs(suspect: Suspect) -> NoReturn:
    raise AssertionError(f"{suspect.metric.name} is not exact")


def _no_twin(_suspect: Suspect) -> None:
    return None
