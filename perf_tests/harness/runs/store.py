"""What a session has measured so far, in memory and in `run.json`; what it continues from an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perf_tests.harness.runs.directory import RECORD
from perf_tests.harness.runs.record import (
    FORMAT_VERSION,
    REASON_OF_PROGRESS,
    Comparison,
    Progress,
    Run,
    RunRecord,
    Status,
    Verdict,
)
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.reports import Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionStart:
    """How a session was started, and what it continues."""

    started_at: str
    """ISO 8601, UTC."""
    command_line: str
    unit: str | None = None
    """`Environment.unit` of this machine, so that no case is compared with a reference of another card; None
    where it is unknown."""
    resumed: RunRecord | None = None
    """The record that the run directory holds already; None for a new run."""


class RunStore:
    """The runs of a session: those of its cases, and those of the references they are compared with."""

    def __init__(
        self,
        out: Path,
        blanks: Mapping[str, Run],
        start: SessionStart,
        environment: Callable[[], Environment | None],
    ) -> None:
        """`blanks` are the runs of the selected cases before they are measured, by id and in order;
        `environment` tells what the first worker reported, None before one did."""
        self.cases: dict[str, Run] = {}
        self.references: dict[str, Run] = {}
        self.comparisons: dict[str, Comparison] = {}
        self.missing: tuple[str, ...] = ()
        """The planned `case: metric` pairs without a verdict."""
        self._path = out / RECORD
        self._blanks = blanks
        self._unit = start.unit
        self._environment = environment
        self._started_at, self._command_line = start.started_at, start.command_line
        self._unselected: tuple[Run, ...] = ()
        self._foreign: tuple[Run, ...] = ()
        if start.resumed:
            self._resume(start.resumed)

    def kept(self, *, implicit: bool) -> dict[str, Run]:
        """The runs of selected cases, or of references that nobody selected (`implicit`), by case id."""
        return self.references if implicit else self.cases

    def is_done(self, case_id: str, *, implicit: bool) -> bool:
        """Whether nothing more of the case is measured in this session."""
        run = self.kept(implicit=implicit).get(case_id)
        return run is not None and run.progress is not Progress.INTERRUPTED

    def keep(self, run: Run, *, implicit: bool) -> None:
        """Store `run` in place of what was stored of its case, and write the record.

        Raises PerfError where the record cannot be written.
        """
        self.kept(implicit=implicit)[run.id] = run
        self.write()

    def file(self, case_id: str, verdicts: tuple[Verdict, ...], status: Status, reason: str) -> Run:
        """Add verdicts and the outcome to the run of a case, write the record and return the run.

        A verdict replaces the former one on its metric. A case that was not measured gets a run without
        processes. Raises PerfError where the record cannot be written.
        """
        run = self.cases.get(case_id) or self._blanks[case_id]
        filed = {verdict.metric: verdict for verdict in (*run.verdicts, *verdicts)}
        # Without a verdict INCONCLUSIVE means that the run is not judged yet.
        is_judged = filed or status is not Status.INCONCLUSIVE
        run = msgspec.structs.replace(
            run,
            verdicts=tuple(filed.values()),
            status=status,
            reason=reason,
            progress=Progress.JUDGED if is_judged else run.progress,
        )
        self.keep(run, implicit=False)
        return run

    def usable_references(self, case_id: str, unit: str | None, *, selected: bool) -> list[Run]:
        """The finished runs of a reference that were measured on `unit` (any where it is None), best first.

        `selected` says whether the case of that id is selected, free of faults, and so serves as a reference.
        """
        kinds = (False, True) if selected else (True,)
        found = [self.kept(implicit=kind)[case_id] for kind in kinds if self.is_done(case_id, implicit=kind)]
        of_other_cards = [run for run in self._foreign if run.id == case_id]
        return [
            run
            for run in (*found, *of_other_cards)
            if run.status is not Status.NOT_RUN and is_of_unit(run, unit)
        ]

    @property
    def record(self) -> RunRecord:
        """The whole record: the selected cases in their order, then those of a resumed run that are not
        selected; comparisons in the order in which they were begun."""
        return RunRecord(
            format_version=FORMAT_VERSION,
            created_at=self._started_at,
            command=self._command_line,
            environment=self._environment(),
            cases=(
                *(self.cases[case_id] for case_id in self._blanks if case_id in self.cases),
                *self._unselected,
            ),
            references=(*self.references.values(), *self._foreign),
            missing=self.missing,
            comparisons=tuple(self.comparisons.values()),
        )

    def write(self) -> None:
        """Write the record. Raises PerfError where that cannot be done; nothing is lost in memory."""
        write_record(self._path, self.record)

    def _resume(self, resumed: RunRecord) -> None:
        self._started_at, self._command_line = resumed.created_at, resumed.command
        self.cases = {run.id: _to_be_judged(run) for run in resumed.cases if self._is_as_planned(run)}
        self._unselected = tuple(run for run in resumed.cases if run.id not in self._blanks)
        references = [run for run in resumed.references if not _is_excused(run)]
        here = [run for run in references if is_of_unit(run, self._unit)]
        self.references = {run.id: run for run in here}
        self._foreign = tuple(run for run in references if run not in here)
        self.comparisons = {each.id: each for each in resumed.comparisons}

    def _is_as_planned(self, run: Run) -> bool:
        now = self._blanks.get(run.id)
        if now is None or run.status is Status.NOT_RUN or _is_excused(run):
            return False
        return (run.digest, run.platform, run.injected) == (now.digest, now.platform, now.injected)


def is_of_unit(run: Run, unit: str | None) -> bool:
    """Whether the run was measured on this card or processor; one without processes fits every unit."""
    return unit is None or not run.processes or run.processes[0].environment.unit == unit


def _is_excused(run: Run) -> bool:
    """Whether it failed for a reason that another session need not meet again."""
    return run.failure is not None and bool(run.failure.excuse)


def _to_be_judged(run: Run) -> Run:
    """A finished run of an earlier session without the verdicts of that session."""
    if run.failure is not None or run.progress is Progress.INTERRUPTED:
        return run
    return msgspec.structs.replace(
        run,
        status=Status.INCONCLUSIVE,
        reason=REASON_OF_PROGRESS[Progress.MEASURED],
        progress=Progress.MEASURED,
        verdicts=(),
    )
