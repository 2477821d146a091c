"""What a session has measured so far, in memory and on the disk; what it continues from an earlier one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec

from perf_tests.harness.records.attributions import Attribution, Corner, diagonal_id
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.runs.journal import Journal
from perf_tests.harness.runs.plan import Plan
from perf_tests.harness.runs.record import (
    FORMAT_VERSION,
    REASON_OF_PROGRESS,
    CellProcess,
    Comparison,
    Diagonal,
    Progress,
    Run,
    RunRecord,
    Status,
    Verdict,
)
from perf_tests.harness.runs.record_file import RECORD, write_record
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
    further_units: tuple[str, ...] = ()
    """Those of the other cards that the session measures on at the same time."""
    resumed: RunRecord | None = None
    """The record that the run directory holds already; None for a new run."""
    plan: Plan | None = None
    """What the session is to measure and judge, for the record; None for what no shard can be part of."""


class RunStore:
    """The runs of a session: those of its cases, and those of the references they are compared with.

    Several threads may keep and file runs: each such step holds `lock`.
    """

    def __init__(
        self,
        out: Path,
        blanks: Mapping[str, Run],
        start: SessionStart,
        environment: Callable[[], Environment | None],
    ) -> None:
        """`blanks` are the runs of the selected cases before they are measured, by id and in order;
        `environment` tells what the first worker reported, None before one did."""
        self.lock = threading.RLock()
        self.cases: dict[str, Run] = {}
        self.comparisons: dict[str, Comparison] = {}
        self.attributions: tuple[Attribution, ...] = ()
        self.evidence: tuple[Evidence, ...] = ()
        self._diagonals: dict[str, Diagonal] = {}
        self.cells: dict[str, CellProcess] = {}
        """Cases in one process of one of the four stacks of an attribution, by id."""
        self.missing: tuple[str, ...] = ()
        """The planned `case: metric` pairs without a verdict."""
        self._path = out / RECORD
        self._journal = Journal(out)
        self._blanks = blanks
        self._unit = start.unit
        self._references: dict[str | None, dict[str, Run]] = {
            unit: {} for unit in (start.unit, *start.further_units)
        }
        self._environment = environment
        self._started_at, self._command_line = start.started_at, start.command_line
        self._plan = start.plan
        self._unselected: tuple[Run, ...] = ()
        self._foreign: tuple[Run, ...] = ()
        if start.resumed:
            self._resume(start.resumed)

    @property
    def environment(self) -> Environment | None:
        """What the first worker reported; None before one did."""
        return self._environment()

    @property
    def references(self) -> dict[str, Run]:
        """The runs of references that nobody selected, on this machine's (first) card, by case id."""
        return self.references_on(self._unit)

    def references_on(self, unit: str | None) -> dict[str, Run]:
        """The runs of references that nobody selected, on one of the session's cards, by case id."""
        return self._references[unit if unit in self._references else self._unit]

    def is_done(self, case_id: str, *, implicit: bool, unit: str | None = None) -> bool:
        """Whether nothing more of the case is measured in this session; of a reference, on the card `unit`
        (None: the first)."""
        run = (self.references_on(unit) if implicit else self.cases).get(case_id)
        return run is not None and run.progress is not Progress.INTERRUPTED

    def is_settled(self, case_id: str) -> bool:
        """Whether no session that resumes this one measures the selected case again."""
        run = self.cases.get(case_id)
        return run is not None and run.progress is not Progress.INTERRUPTED and not _is_measured_anew(run)

    def runs(self) -> Iterator[Run]:
        """All runs of selected cases and of references."""
        yield from (*self.cases.values(), *self._all_references())

    def put(self, run: Run, *, implicit: bool, unit: str | None = None) -> None:
        """Store `run`, which the card `unit` measured (None: the first), without writing the record."""
        with self.lock:
            (self.references_on(unit) if implicit else self.cases)[run.id] = run

    def keep(self, run: Run, *, implicit: bool, unit: str | None = None) -> None:
        """Store `run` in place of what was stored of its case on that card, and write the record.

        Raises PerfError where the record cannot be written.
        """
        with self.lock:
            self.put(run, implicit=implicit, unit=unit)
            self.write()

    def file(self, case_id: str, verdicts: tuple[Verdict, ...], status: Status, reason: str) -> Run:
        """Add verdicts and the outcome to the run of a case, write the record and return the run.

        A verdict replaces the former one on its metric. A case that was not measured gets a run without
        processes. Raises PerfError where the record cannot be written.
        """
        with self.lock:
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

    def comparison(self, case_id: str, corners: tuple[Corner, Corner] | None) -> Comparison | None:
        """The case under two of the four stacks of an attribution, or for None its A/B; None where there is
        none."""
        if corners is None:
            return self.comparisons.get(case_id)
        found = self._diagonals.get(diagonal_id(case_id, corners))
        return found.comparison if found else None

    def put_comparison(self, comparison: Comparison, corners: tuple[Corner, Corner] | None) -> None:
        """Store what `comparison` gives, without writing the record."""
        with self.lock:
            if corners is None:
                self.comparisons[comparison.id] = comparison
            else:
                candidate, stable = corners
                diagonal = Diagonal(candidate=candidate, stable=stable, comparison=comparison)
                self._diagonals[diagonal.id] = diagonal

    def usable_references(self, case_id: str, unit: str | None, *, selected: bool) -> list[Run]:
        """The finished runs of a reference that were measured on `unit` (any where it is None), best first.

        `selected` says whether the case of that id is selected, free of faults, and so serves as a reference.
        """
        found = [self.cases[case_id]] if selected and self.is_done(case_id, implicit=False) else []
        if self.is_done(case_id, implicit=True, unit=unit):
            found.append(self.references_on(unit)[case_id])
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
            references=self._all_references(),
            missing=self.missing,
            comparisons=tuple(self.comparisons.values()),
            plan=self._plan,
            diagonals=tuple(self._diagonals.values()),
            cells=tuple(self.cells.values()),
            attributions=self.attributions,
            evidence=self.evidence,
        )

    def write(self) -> None:
        """Append what has changed to the journal. Raises PerfError where that cannot be done; nothing is lost
        in memory."""
        with self.lock:
            self._journal.write(self.record)

    def finish(self) -> None:
        """Write the whole record to `run.json`, which takes the place of the journal.

        Raises PerfError where that cannot be done; nothing is lost in memory, and the journal stays as it is.
        """
        with self.lock:
            write_record(self._path, self.record)
            self._journal.remove()

    def _all_references(self) -> tuple[Run, ...]:
        return (*chain(*(runs.values() for runs in self._references.values())), *self._foreign)

    def _resume(self, resumed: RunRecord) -> None:
        self._started_at, self._command_line = resumed.created_at, resumed.command
        self.cases = {run.id: _to_be_judged(run) for run in resumed.cases if self._is_as_planned(run)}
        self._unselected = tuple(run for run in resumed.cases if run.id not in self._blanks)
        references = [run for run in resumed.references if not _is_excused(run)]
        for run in references:
            here = [runs for unit, runs in self._references.items() if is_of_unit(run, unit)]
            if here:
                here[0][run.id] = run
            else:
                self._foreign = (*self._foreign, run)
        self.comparisons = {each.id: each for each in resumed.comparisons}
        self._diagonals = {each.id: each for each in resumed.diagonals}
        self.cells = {each.id: each for each in resumed.cells}
        known = {*self.cases, *(run.id for run in self._unselected)}
        self.evidence = tuple(each for each in resumed.evidence if each.id in known)

    def _is_as_planned(self, run: Run) -> bool:
        now = self._blanks.get(run.id)
        if now is None or _is_measured_anew(run):
            return False
        return (run.digest, run.platform, run.injected) == (now.digest, now.platform, now.injected)


def is_of_unit(run: Run, unit: str | None) -> bool:
    """Whether the run was measured on this card or processor; one without processes fits every unit."""
    return unit is None or not run.processes or run.processes[0].environment.unit == unit


def _is_excused(run: Run) -> bool:
    """Whether it failed for a reason that another session need not meet again."""
    return run.failure is not None and bool(run.failure.excuse)


def _is_measured_anew(run: Run) -> bool:
    """Whether a session that resumes another does not keep what that one says of the case."""
    return run.status is Status.NOT_RUN or _is_excused(run)


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
