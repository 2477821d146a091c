"""Measures the cases of a session, each once: build by build, references first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perf_tests.harness.execution.launcher import Launcher, Stack
from perf_tests.harness.execution.planned import Planned, PlannedCases, blank
from perf_tests.harness.execution.sampling import SamplingRules, Series
from perf_tests.harness.execution.shared_worker import SharedWorker, Subject, Twins
from perf_tests.harness.runs.record import REASON_OF_PROGRESS, Progress, Run, RunRecord, Status, Verdict
from perf_tests.harness.runs.store import RunStore, SessionStart

Prepare = Callable[[Run, Run | None], Run]
"""Completes a run that did not fail; its second argument is the run of the reference, None without one."""
Admit = Callable[[str], str | None]
"""Why the case of that id is not started; None where it is."""


def _unchanged(run: Run, _reference: Run | None, /) -> Run:
    return run


def _always(_case_id: str, /) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Callbacks:
    """What a campaign leaves to others."""

    prepare: Prepare = _unchanged
    """Called once for each run; what it returns is stored."""
    admit: Admit = _always
    """Called before a selected case is started."""


class Campaign:
    """Everything that is measured in one session, in a run directory of its own.

    Cases of one build share a worker, small workloads first; a case with injected faults has its own. The
    order in which cases are asked for decides when each is measured, but not what is measured.
    """

    def __init__(
        self,
        selected: Sequence[Planned],
        out: Path,
        stack: Stack,
        rules: SamplingRules,
        start: SessionStart,
        callbacks: Callbacks | None = None,
    ) -> None:
        """Measure the `selected` cases on `stack`, in the run directory `out`."""
        out = out.resolve()
        environment = start.resumed.environment if start.resumed else None
        self.planned = PlannedCases(selected)
        self._rules = rules
        self._callbacks = callbacks or Callbacks()
        self._unit = start.unit
        self._launcher = Launcher(out, stack, environment=environment)
        self.store = RunStore(out, self.planned.blanks, start, lambda: self._launcher.environment)
        self._twins = Twins(self._launcher, rules.warmups, self.store.references)
        self._worker = SharedWorker(self._launcher, rules, self._twins, self._is_admitted, self._keep)
        self._is_closed = False

    @property
    def record(self) -> RunRecord:
        """The whole record, as far as it was measured and judged."""
        return self.store.record

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
        if not self.store.is_done(case_id, implicit=False):
            self._measure_build(planned, implicit=False)
        return self.store.cases[case_id]

    def reference(self, case_id: str) -> Run | None:
        """The run that a selected case is compared with, measured if need be; None where there is none.

        Raises what `run` raises.
        """
        planned = self.planned[case_id]
        run = self.store.cases.get(case_id)
        unit = run.processes[0].environment.unit if run and run.processes else self._unit
        return self._reference(planned, unit)

    def file(self, case_id: str, verdicts: tuple[Verdict, ...], status: Status, reason: str) -> Run:
        """Add verdicts and the outcome to the run of a selected case (see `RunStore.file`).

        Raises UsageError for a case that is not selected, PerfError where the record cannot be written.
        """
        return self.store.file(self.planned[case_id].case.id, verdicts, status, reason)

    def set_missing(self, missing: tuple[str, ...]) -> None:
        """Note the planned `case: metric` pairs without a verdict; `close` writes them."""
        self.store.missing = missing

    def interrupt(self) -> None:
        """Kill all workers at once, then do what `close` does."""
        self._launcher.kill_all()
        self.close()

    def close(self) -> None:
        """End all workers and write the record. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._twins.close()
        self._launcher.kill_all()
        self.store.write()

    def _reference(self, planned: Planned, unit: str | None) -> Run | None:
        reference = planned.reference
        if reference is None:
            return None
        case = reference.case
        selected = self.planned.has_reference(case)
        if selected:
            self.run(case.id)
        known = self.store.usable_references(case.id, unit, selected=selected)
        if known:
            return known[0]
        # Nobody selected it, or it was measured on another card, or the time did not suffice for it.
        self._measure_build(reference, implicit=True)
        return self.store.references[case.id]

    def _measure_build(self, wanted: Planned, *, implicit: bool) -> None:
        """Measure `wanted` and all that can share its workers."""
        # A case that is not started needs no reference.
        subjects = [each for each in self._subjects(wanted, implicit=implicit) if self._is_admitted(each)]
        for subject in subjects:
            self._reference(subject.planned, self._unit)
        try:
            for subject in subjects:
                self._keep(subject)  # an earlier session may have stopped after the last process of it
            while waiting := [subject for subject in subjects if not subject.series.is_over]:
                while waiting := [subject for subject in waiting if self._is_admitted(subject)]:
                    waiting = self._worker.measure(waiting)
        except BaseException:  # Ctrl-C, SIGTERM or a full disk: complete processes are kept
            for subject in subjects:
                self._keep_interrupted(subject)
            raise

    def _subjects(self, wanted: Planned, *, implicit: bool) -> list[Subject]:
        """`wanted` and the unmeasured cases that share its workers, in the order of measuring."""
        cases, references = self.planned.sharing(wanted)
        found = {(wanted.case.id, implicit): wanted}
        found |= {(each.case.id, False): each for each in cases if not self._is_done(each, implicit=False)}
        found |= {(each.case.id, True): each for each in references if not self._is_done(each, implicit=True)}
        subjects = [self._subject(each, implicit=kind) for (_, kind), each in found.items()]
        return sorted(subjects, key=lambda subject: subject.planned.case.worker_order)

    def _subject(self, planned: Planned, *, implicit: bool) -> Subject:
        begun = self.store.kept(implicit=implicit).get(planned.case.id)
        rules = self._rules
        start = begun and msgspec.structs.replace(begun, reason="", progress=Progress.PLANNED)
        return Subject(planned, implicit, Series(start or blank(planned), rules.decide, rules.max_processes))

    def _is_done(self, planned: Planned, *, implicit: bool) -> bool:
        return self.store.is_done(planned.case.id, implicit=implicit)

    def _is_admitted(self, subject: Subject) -> bool:
        """Whether the case is started. A reference always is: the case that waits for it was admitted."""
        if subject.series.run.processes or subject.implicit:
            return True
        refusal = self._callbacks.admit(subject.planned.case.id)
        if refusal is not None:
            subject.series.refused(refusal)
            self.store.keep(subject.series.run, implicit=False)
        return refusal is None

    def _keep(self, subject: Subject) -> None:
        """Store the run of a case whose processes are complete; until then only its series holds it."""
        if not subject.series.is_over:
            return
        run = msgspec.structs.replace(subject.series.run, progress=Progress.MEASURED)
        if run.failure is None:
            unit = run.processes[0].environment.unit if run.processes else self._unit
            run = msgspec.structs.replace(run, reason=REASON_OF_PROGRESS[Progress.MEASURED])
            run = self._callbacks.prepare(run, self._reference(subject.planned, unit))
        self.store.keep(run, implicit=subject.implicit)

    def _keep_interrupted(self, subject: Subject) -> None:
        run = subject.series.run
        if run.processes and not self._is_done(subject.planned, implicit=subject.implicit):
            reason = REASON_OF_PROGRESS[Progress.INTERRUPTED]
            run = msgspec.structs.replace(run, reason=reason, progress=Progress.INTERRUPTED)
            self.store.kept(implicit=subject.implicit)[run.id] = run
