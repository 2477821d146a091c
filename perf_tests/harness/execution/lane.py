"""One device and what is measured on it: builds one after another, references first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from perf_tests.harness.execution.launcher import Launcher, Seen, Stack
from perf_tests.harness.execution.planned import Planned, PlannedCases, blank
from perf_tests.harness.execution.sampling import SamplingRules, Series
from perf_tests.harness.execution.shared_worker import SharedWorker, Subject, Twins
from perf_tests.harness.lanes import machine
from perf_tests.harness.lanes.job_queue import Job
from perf_tests.harness.retention.arrays import ArrayFiles
from perf_tests.harness.runs.record import REASON_OF_PROGRESS, Progress, Run
from perf_tests.harness.runs.store import RunStore
from perf_tests.protocol.messages import FailureKind, Phase

Prepare = Callable[[Run, Run | None], Run]
"""Completes a run that did not fail; its second argument is the run of the reference, None without one."""
Admit = Callable[[str], str | None]
"""Why the case of that id is not started; None where it is."""
Draw = Callable[[Run], None]
"""Told of each selected case once its run is stored, before its arrays may be removed."""
FollowUp = Callable[[Run], None]
"""Told of each selected case once its run is stored, on the card that measured it."""

BEFORE_ANY_WORK = frozenset({Phase.IMPORT, Phase.LOAD})
FAULTS_OF_A_CARD = frozenset({FailureKind.LOAD, FailureKind.CRASH, FailureKind.TIMEOUT})
FAILED_STARTS = 2
"""After so many builds in a row that failed before they computed anything, a card is taken for broken."""


def _unchanged(run: Run, _reference: Run | None, /) -> Run:
    return run


def _always(_case_id: str, /) -> str | None:
    return None


def _nothing(_run: Run, /) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Callbacks:
    """What a campaign leaves to others. With several cards they are called from several threads."""

    prepare: Prepare = _unchanged
    """Called once for each run; what it returns is stored."""
    admit: Admit = _always
    """Called before a selected case is started."""
    draw: Draw = _nothing
    follow_up: FollowUp = _nothing
    """Called only where there are several cards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What all lanes of a campaign have in common."""

    planned: PlannedCases
    store: RunStore
    rules: SamplingRules
    callbacks: Callbacks
    arrays: ArrayFiles


class Lane:
    """Measures builds on one device. All of its methods are called by one thread, except `abort`."""

    def __init__(self, launcher: Launcher, work: Work, unit: str | None) -> None:
        """`unit` is the `Environment.unit` of the device, None where it is unknown."""
        self.unit = unit
        self.card = launcher.card
        """None where the session has only one device."""
        self.meter = launcher.meter
        self.failed_starts = 0
        """How many builds in a row failed before they computed anything."""
        self.claim: Callable[[str], Job | None] | None = None
        """Asked for the job of a selected reference that another lane may measure; None without other
        lanes."""
        self.gives_up: Callable[[], bool] = bool
        """Asked after a case that failed at its start: whether other lanes measure what is left."""
        self._launcher = launcher
        self._work = work
        self._planned, self._store, self._callbacks = work.planned, work.store, work.callbacks
        self._references = self._store.references_on(unit)
        self._twins = Twins(launcher, work.rules.warmups, self._references)
        self._worker = SharedWorker(launcher, work.rules, self._twins, self._is_admitted, self._keep)
        self._failed_again: dict[str, Run] = {}
        """By case id: references that failed when they were measured again; the numbers before are kept."""
        self._scope: frozenset[str] | None = None
        self._others: list[Launcher] = []

    @property
    def late_imports(self) -> str | None:
        """Why workers import when they are wanted, although the platform has it otherwise; None if not."""
        launchers = (self._launcher, *self._others)
        return next((each.late_imports for each in launchers if each.late_imports), None)

    def launcher(self, stack: Stack, seen: Seen | None = None) -> Launcher:
        """A launcher of workers of another stack on this device, which nothing is imported beside."""
        self._launcher.drop_spare()
        launcher = Launcher(self._launcher.out, stack, seen=seen, card=self.card, meter=self.meter)
        self._others.append(launcher)
        return launcher

    def measure_job(self, job: Job) -> None:
        """Measure the cases of `job`, and of their references those that this device lacks."""
        before, self._scope = self._scope, frozenset(job.cases)
        try:
            for case_id in job.cases:
                if not self._store.is_done(case_id, implicit=False):
                    self.measure_build(self._planned[case_id], implicit=False)
                if self._has_given_up:
                    return
                self._callbacks.follow_up(self._store.cases[case_id])
        finally:
            self._scope = before

    def reference(self, planned: Planned, unit: str | None, *, with_arrays: bool = False) -> Run | None:
        """The run on `unit` that `planned` is compared with, measured if need be; None for a reference.

        One that is resumed may lack its arrays. It is measured again where they are asked for.
        """
        reference = planned.reference
        if reference is None:
            return None
        case = reference.case
        selected = self._planned.has_reference(case)
        if selected:
            self._measure_selected(case.id)
        known = self._store.usable_references(case.id, unit, selected=selected)
        complete = [run for run in known if run.failure or not with_arrays or self._work.arrays.has(run)]
        if complete:
            return complete[0]
        if known:
            self._work.arrays.missed.add(case.id)
        # Nobody selected it, or it was measured on another card, or the time did not suffice for it.
        if case.id not in self._failed_again:
            self.measure_build(reference, implicit=True)
        return self._failed_again.get(case.id) or self._references[case.id]

    @property
    def is_broken(self) -> bool:
        """Whether the device itself seems to fail, not what was measured on it."""
        lost = self.failed_starts and self.card is not None and not machine.answers(self.card.unit)
        return self.failed_starts >= FAILED_STARTS or bool(lost)

    @property
    def _has_given_up(self) -> bool:
        return self.failed_starts > 0 and self.gives_up()

    def abort(self) -> None:
        """End all workers from another thread; the lane's own thread then meets `AbortedError`."""
        for launcher in (self._launcher, *self._others):
            launcher.abort_all()

    def kill(self) -> None:
        """Kill all workers at once. Idempotent."""
        self._launcher.kill_all()

    def close(self) -> None:
        """End all workers. Idempotent."""
        self._twins.close()
        self._launcher.kill_all()

    def measure_build(self, wanted: Planned, *, implicit: bool) -> None:
        """Measure `wanted` and all that can share its workers and that no other lane measures."""
        # A case that is not started needs no reference.
        subjects = [each for each in self._subjects(wanted, implicit=implicit) if self._is_admitted(each)]
        for subject in subjects:
            self.reference(subject.planned, self.unit, with_arrays=True)
        try:
            for subject in subjects:
                self._keep(subject)  # an earlier session may have stopped after the last process of it
            while waiting := [each for each in subjects if not (each.series.is_over or self._has_given_up)]:
                while waiting := [
                    each for each in waiting if not self._has_given_up and self._is_admitted(each)
                ]:
                    waiting = self._worker.measure(waiting)
        except BaseException:  # Ctrl-C, SIGTERM or a full disk: complete processes are kept
            for subject in subjects:
                self._keep_interrupted(subject)
            raise

    def _measure_selected(self, case_id: str) -> None:
        """Measure a selected case now, because others are compared with it."""
        if self.claim is None:
            if not self._store.is_done(case_id, implicit=False):
                self.measure_build(self._planned[case_id], implicit=False)
        elif job := self.claim(case_id):
            self.measure_job(job)

    def _subjects(self, wanted: Planned, *, implicit: bool) -> list[Subject]:
        """`wanted` and the unmeasured cases that share its workers, in the order of measuring."""
        cases, references = self._planned.sharing(wanted)
        found = {(wanted.case.id, implicit): wanted}
        found |= {(each.case.id, False): each for each in cases if self._is_mine(each)}
        found |= {(each.case.id, True): each for each in references if self._is_needed(each)}
        subjects = [self._subject(each, implicit=kind) for (_, kind), each in found.items()]
        return sorted(subjects, key=lambda subject: subject.planned.case.worker_order)

    def _is_mine(self, planned: Planned) -> bool:
        """Whether a selected case is still to be measured, and here."""
        in_scope = self._scope is None or planned.case.id in self._scope
        return in_scope and not self._store.is_done(planned.case.id, implicit=False)

    def _is_needed(self, planned: Planned) -> bool:
        """Whether a reference that nobody selected is still to be measured here."""
        if self._scope is not None:
            references = (self._planned[case_id].reference for case_id in self._scope)
            if planned.case.id not in {each.case.id for each in references if each is not None}:
                return False
        return not self._store.is_done(planned.case.id, implicit=True, unit=self.unit)

    def _subject(self, planned: Planned, *, implicit: bool) -> Subject:
        kept = self._references if implicit else self._store.cases
        begun = kept.get(planned.case.id)
        if begun and not self._work.arrays.has(begun):
            begun = None
        rules = self._work.rules
        start = begun and msgspec.structs.replace(begun, reason="", progress=Progress.PLANNED)
        return Subject(planned, implicit, Series(start or blank(planned), rules.decide, rules.max_processes))

    def _is_admitted(self, subject: Subject) -> bool:
        """Whether the case is started. A reference always is: the case that waits for it was admitted."""
        if subject.series.run.processes or subject.implicit:
            return True
        refusal = self._callbacks.admit(subject.planned.case.id)
        if refusal is not None:
            subject.series.refused(refusal)
            self._store.keep(subject.series.run, implicit=False)
        return refusal is None

    def _keep(self, subject: Subject) -> None:
        """Store the run of a case whose processes are complete; until then only its series holds it."""
        if not subject.series.is_over:
            return
        run = msgspec.structs.replace(subject.series.run, progress=Progress.MEASURED)
        self._count_failed_starts(run)
        if run.failure is None:
            unit = run.processes[0].environment.unit if run.processes else self.unit
            run = msgspec.structs.replace(run, reason=REASON_OF_PROGRESS[Progress.MEASURED])
            reference = self.reference(subject.planned, unit, with_arrays=True)
            run = self._callbacks.prepare(run, reference)
        if subject.implicit and run.failure and self._store.is_done(run.id, implicit=True, unit=self.unit):
            self._failed_again[run.id] = run
            return
        # Once the run is stored, a thread of another card may find that nothing needs its arrays.
        with self._work.arrays.in_use(run.id):
            self._store.keep(run, implicit=subject.implicit, unit=self.unit)
            if not subject.implicit:
                self._callbacks.draw(run)
        self._work.arrays.remove_unneeded()

    def _count_failed_starts(self, run: Run) -> None:
        failure = run.failure
        failed = failure and failure.phase in BEFORE_ANY_WORK and failure.kind in FAULTS_OF_A_CARD
        self.failed_starts = self.failed_starts + 1 if failed else 0

    def _keep_interrupted(self, subject: Subject) -> None:
        run, unit = subject.series.run, self.unit
        if run.processes and not self._store.is_done(run.id, implicit=subject.implicit, unit=unit):
            reason = REASON_OF_PROGRESS[Progress.INTERRUPTED]
            run = msgspec.structs.replace(run, reason=reason, progress=Progress.INTERRUPTED)
            self._store.put(run, implicit=subject.implicit, unit=unit)
