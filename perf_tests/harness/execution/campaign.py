"""Measures the cases of a session, each once: build by build, references first, on one device or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from perf_tests.harness.execution.crew import Crew
from perf_tests.harness.execution.lane import Callbacks, Lane, Work, known_reference
from perf_tests.harness.execution.launcher import AbortedError, Launcher, Seen, Stack
from perf_tests.harness.execution.planned import Planned, PlannedCases
from perf_tests.harness.execution.sampling import SamplingRules
from perf_tests.harness.lanes.cards import LaneCard
from perf_tests.harness.lanes.job_queue import Job
from perf_tests.harness.processes.usage import Usage
from perf_tests.harness.retention.arrays import ArrayFiles
from perf_tests.harness.runs.record import Run, RunRecord, Status, Verdict
from perf_tests.harness.runs.store import RunStore, SessionStart

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Several:
    """Cards that measure at the same time, and what they are to measure."""

    cards: Sequence[LaneCard]
    jobs: Sequence[Job]
    """Together they hold all selected cases that are not measured yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asides:
    """What a campaign has to tell beside its record; by UUID of the card, None for the only device."""

    measured_again: tuple[str, ...] = ()
    """Ids of the references that a resumed session had measured, and that were measured again."""
    retired: Mapping[str, str] = field(default_factory=dict)
    """Why a card measures no more."""
    late_imports: Mapping[str | None, str] = field(default_factory=dict)
    """Why workers import when they are wanted, although their platform has it otherwise."""
    usage: Mapping[str | None, Usage] = field(default_factory=dict)


class Campaign:
    """Everything that is measured in one session, in a run directory of its own.

    Cases of one build share a worker, small workloads first; a case with injected faults has its own. On one
    device the order in which cases are asked for decides when each is measured, but not what is measured; on
    several cards the first request sets all of them to work.
    """

    def __init__(
        self,
        selected: Sequence[Planned],
        out: Path,
        stack: Stack,
        rules: SamplingRules,
        start: SessionStart,
        callbacks: Callbacks | None = None,
        several: Several | None = None,
    ) -> None:
        """Measure the `selected` cases on `stack`, in the run directory `out`.

        `several` are the cards to measure on at the same time; None for one device.
        """
        out = out.resolve()
        seen = Seen(start.resumed.environment if start.resumed else None)
        self.planned = PlannedCases(selected)
        self.store = RunStore(out, self.planned.blanks, start, lambda: seen.environment)
        self._callbacks = callbacks or Callbacks()
        self._arrays = ArrayFiles(out, self.planned.dependants, self.store)
        self._work = Work(
            planned=self.planned,
            store=self.store,
            rules=rules,
            callbacks=self._callbacks,
            arrays=self._arrays,
        )
        self._lanes = [
            Lane(Launcher(out, stack, seen=seen, card=card), self._work, card.unit if card else start.unit)
            for card in (several.cards if several else (None,))
        ]
        self._crew = Crew(self._lanes, several.jobs, self._is_done) if several else None
        self._unit = start.unit
        self._is_aborted = False
        self._is_closed = False

    def clear_up(self) -> None:
        """Draw what a resumed session was killed before drawing, and remove the arrays that it left."""
        done = sorted(self.done)
        with self._arrays.in_use(*done):  # to ask for a reference sets several cards to work
            for case_id in done:
                if self._arrays.has(run := self.store.cases[case_id]):
                    self._callbacks.draw(run)
        self._arrays.remove_unneeded()

    @property
    def record(self) -> RunRecord:
        """The whole record, as far as it was measured and judged."""
        return self.store.record

    @property
    def asides(self) -> Asides:
        """What there is to tell so far."""
        lanes = {lane.card.unit if lane.card else None: lane for lane in self._lanes}
        return Asides(
            measured_again=tuple(sorted(self._arrays.missed)),
            retired=self._crew.retired if self._crew else {},
            late_imports={unit: why for unit, lane in lanes.items() if (why := _late_imports(lane))},
            usage={unit: usage for unit, lane in lanes.items() if (usage := lane.meter.usage)},
        )

    @property
    def done(self) -> frozenset[str]:
        """The ids of the selected cases that are measured."""
        return frozenset(
            each.case.id for each in self.planned if self.store.is_done(each.case.id, implicit=False)
        )

    def run(self, case_id: str) -> Run:
        """The run of a selected case, measured at the first request; a failed one holds its failure.

        Raises UsageError for a case that is not selected, and PerfError where the run directory cannot be
        written; what was measured is kept in memory even then.
        """
        planned = self.planned[case_id]
        if not self._is_done(case_id):
            if self._crew:
                self._crew.wait_for(case_id)
            else:
                self._lanes[0].measure_build(planned, implicit=False)
        return self.store.cases[case_id]

    def reference(self, case_id: str, unit: str | None = None) -> Run | None:
        """The run that a selected case is compared with, measured if need be; None where there is none.

        `unit` is where the case was measured, None where the record says so. Raises what `run` raises, and
        AbortedError after `abort` for one that is not measured.
        """
        planned = self.planned[case_id]
        run = self.store.cases.get(case_id)
        measured = run.processes[0].environment.unit if run and run.processes else self._unit
        wanted = unit or measured
        if self._is_aborted:
            return known_reference(self._work, planned, wanted)
        return self.on_device(wanted, lambda lane: lane.reference(planned, wanted))

    def on_device(self, unit: str | None, do: Callable[[Lane], T]) -> T:
        """What `do` returns, on the lane of the card `unit`, while nothing else is measured there.

        Raises what `do` raises, and AbortedError after `abort`.
        """
        if self._is_aborted:
            raise AbortedError
        return self._crew.ask(unit, do) if self._crew else do(self._lanes[0])

    def file(self, case_id: str, verdicts: tuple[Verdict, ...], status: Status, reason: str) -> Run:
        """Add verdicts and the outcome to the run of a selected case (see `RunStore.file`).

        Raises UsageError for a case that is not selected, PerfError where the record cannot be written.
        """
        return self.store.file(self.planned[case_id].case.id, verdicts, status, reason)

    def set_missing(self, missing: tuple[str, ...]) -> None:
        """Note the planned `case: metric` pairs without a verdict; `close` writes them."""
        self.store.missing = missing

    def abort(self) -> None:
        """Kill all workers at once: nothing more is measured, and what is can be judged until `close`."""
        self._is_aborted = True
        if self._crew:
            self._crew.stop()
        else:
            self._lanes[0].launchers[0].kill_all()

    def close(self) -> None:
        """End all workers and write the record. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._crew:
            self._crew.stop()
        for lane in self._lanes:
            lane.close()
        self.store.finish()

    def _is_done(self, case_id: str) -> bool:
        return self.store.is_done(case_id, implicit=False)


def _late_imports(lane: Lane) -> str | None:
    return next((each.late_imports for each in lane.launchers if each.late_imports), None)
