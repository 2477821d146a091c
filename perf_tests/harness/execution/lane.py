"""One device and what is measured on it: builds one after another, references first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from perf_tests.harness.execution.launcher import AbortedError, Launcher, Seen, Stack
from perf_tests.harness.execution.planned import Planned, PlannedCases, blank
from perf_tests.harness.execution.sampling import SamplingRules, Series
from perf_tests.harness.execution.shared_worker import SharedWorker, Subject, Twins
from perf_tests.harness.lanes import machine
from perf_tests.harness.lanes.afterwork import Afterwork
from perf_tests.harness.lanes.job_queue import Job
from perf_tests.harness.retention.arrays import ArrayFiles
from perf_tests.harness.runs.record import REASON_OF_PROGRESS, Progress, Run
from perf_tests.harness.runs.store import RunStore, is_of_unit
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
    follow_up: FollowUp | None = None
    """Called only where there are several cards. None where nothing follows, so that nobody waits for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What all lanes of a campaign have in common."""

    planned: PlannedCases
    store: RunStore
    rules: SamplingRules
    callbacks: Callbacks
    arrays: ArrayFiles


class Lane:
    """Measures builds on one device. All of its methods are called by one thread, except `abort`.

    Where a session has several cards, what is measured is compared by another thread while the next worker
    loads; nothing is timed before that has ended.
    """

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
        self.launchers = [launcher]
        """The first is that of what is measured, the others are of other stacks."""
        self.afterwork = Afterwork(beside=launcher.card is not None)
        self._launcher = launcher
        self._work = work
        self._planned, self._store, self._callbacks = work.planned, work.store, work.callbacks
        self._references = self._store.references_on(unit)
        self._twins = Twins(launcher, work.rules.warmups, self._references)
        self._worker = SharedWorker(
            launcher, work.rules, self._twins, self._is_admitted, self._keep, self.afterwork.wait
        )
        self._failed_again: dict[str, Run] = {}
        """By case id: references that failed when they were measured again; the numbers before are kept."""
        self._scope: frozenset[str] | None = None

    def launcher(self, stack: Stack, seen: Seen | None = None) -> Launcher:
        """A launcher of workers of another stack on this device, which nothing is imported beside."""
        self._launcher.drop_spare()
        launcher = Launcher(self._launcher.out, stack, seen=seen, card=self.card, meter=self.meter)
        self.launchers.append(launcher)
        self._launcher.raise_if_aborted()  # meanwhile, when this one was not among those to abort
        return launcher

    def measure_job(self, job: Job) -> None:
        """Measure the cases of `job`, and of their references those that this device lacks."""
        before, self._scope = self._scope, frozenset(job.cases)
        try:
            for case_id in job.cases:
                if not self._is_done(case_id, implicit=False):
                    self.measure_build(self._planned[case_id], implicit=False)
                if self._has_given_up:
                    return
                if self._callbacks.follow_up is not None:
                    self.afterwork.wait()
                    self._callbacks.follow_up(self._store.cases[case_id])
        finally:
            self._scope = before

    def reference(self, planned: Planned, unit: str | None, *, with_arrays: bool = False) -> Run | None:
        """The run on `unit` that `planned` is compared with, measured if need be; None for a reference.

        One that is resumed may lack its arrays. It is measured again where they are asked for. What compares
        measured cases is told of what there is, and measures nothing.
        """
        reference = planned.reference
        if reference is None:
            return None
        if not self.afterwork.is_mine:
            self._measure_reference(planned, unit, with_arrays=with_arrays)
            if self._is_compared_now(reference):
                self.afterwork.wait()
        case_id = reference.case.id
        known = _usable(self._work, reference, unit, with_arrays=with_arrays)
        return known[0] if known else self._failed_again.get(case_id) or self._references[case_id]

    def _measure_reference(self, planned: Planned, unit: str | None, *, with_arrays: bool) -> None:
        """Have the reference of `planned`, if it has one, measured on `unit`; it may be compared later."""
        reference = planned.reference
        if reference is None:
            return
        case = reference.case
        if self._planned.has_reference(case):
            self._measure_selected(case.id)
        is_known = bool(_usable(self._work, reference, unit, with_arrays=with_arrays))
        if is_known or self._is_compared_now(reference):
            return
        if _usable(self._work, reference, unit, with_arrays=False):
            self._work.arrays.missed.add(case.id)
        # Nobody selected it, or it was measured on another card, or the time did not suffice for it.
        if case.id not in self._failed_again:
            self.measure_build(reference, implicit=True)

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
        for launcher in self.launchers:
            launcher.abort_all()

    def close(self) -> None:
        """End all workers. Idempotent."""
        self._twins.close()
        self._launcher.kill_all()
        self.afterwork.close()

    def measure_build(self, wanted: Planned, *, implicit: bool) -> None:
        """Measure `wanted` and all that can share its workers and that no other lane measures."""
        # A case that is not started needs no reference.
        subjects = [each for each in self._subjects(wanted, implicit=implicit) if self._is_admitted(each)]
        for subject in subjects:
            self._measure_reference(subject.planned, self.unit, with_arrays=True)
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
            if not self._is_done(case_id, implicit=False):
                self.measure_build(self._planned[case_id], implicit=False)
        elif job := self.claim(case_id):
            self.measure_job(job)

    def _subjects(self, wanted: Planned, *, implicit: bool) -> list[Subject]:
        """`wanted` and the unmeasured cases that share its workers, in the order of measuring."""
        cases, references = self._planned.sharing(wanted)
        found = {(wanted.case.id, implicit): wanted}
        found |= {(each.case.id, False): each for each in cases if self._is_wanted(each, implicit=False)}
        found |= {(each.case.id, True): each for each in references if self._is_wanted(each, implicit=True)}
        subjects = [self._subject(each, implicit=kind) for (_, kind), each in found.items()]
        return sorted(subjects, key=lambda subject: subject.planned.case.worker_order)

    def _is_done(self, case_id: str, *, implicit: bool) -> bool:
        """Whether nothing more of a case is measured here, be it compared and stored or not yet."""
        is_stored = self._store.is_done(case_id, implicit=implicit, unit=self.unit)
        return is_stored or self.afterwork.holds((case_id, implicit))

    def _is_compared_now(self, reference: Planned) -> bool:
        """Whether the reference is measured, and what needs it will be compared after it."""
        return any(self.afterwork.holds((reference.case.id, implicit)) for implicit in (True, False))

    def _is_wanted(self, planned: Planned, *, implicit: bool) -> bool:
        """Whether a selected case, or a reference that nobody selected, is still to be measured, and here."""
        if self._scope is not None:
            references = (self._planned[case_id].reference for case_id in self._scope)
            needed = {each.case.id for each in references if each is not None}
            if planned.case.id not in (needed if implicit else self._scope):
                return False
        return not self._is_done(planned.case.id, implicit=implicit)

    def _subject(self, planned: Planned, *, implicit: bool) -> Subject:
        kept = self._references if implicit else self._store.cases
        begun = kept.get(planned.case.id)
        # Processes of two cards make no baseline together, and no verdict: the case is begun anew here.
        if begun and not (self._work.arrays.has(begun) and is_of_unit(begun, self.unit)):
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
        """Compare and store a case whose processes are complete; until then only its series holds it."""
        run = subject.series.run
        if not subject.series.is_over or self.afterwork.holds((run.id, subject.implicit)):
            return
        self.failed_starts = self.failed_starts + 1 if _has_failed_to_start(run) else 0
        if run.failure is None:
            self._measure_reference(subject.planned, _unit_of(run) or self.unit, with_arrays=True)
        self.afterwork.do((run.id, subject.implicit), partial(self._finish, subject))

    def _finish(self, subject: Subject) -> None:
        """Compare and store a case; where that cannot be done, its complete processes are kept."""
        measured = subject.series.run
        run = msgspec.structs.replace(measured, progress=Progress.MEASURED)
        try:
            if run.failure is None:
                run = msgspec.structs.replace(run, reason=REASON_OF_PROGRESS[Progress.MEASURED])
                reference = self.reference(subject.planned, _unit_of(run) or self.unit, with_arrays=True)
                run = self._callbacks.prepare(run, reference)
            is_stored = self._store.is_done(run.id, implicit=True, unit=self.unit)
            if subject.implicit and run.failure and is_stored:
                self._failed_again[run.id] = run
                return
            # Once the run is stored, a thread of another card may find that nothing needs its arrays.
            with self._work.arrays.in_use(run.id):
                self._store.keep(run, implicit=subject.implicit, unit=self.unit)
                if not subject.implicit:
                    self._callbacks.draw(run)
        except BaseException:
            is_stored = self._store.is_done(run.id, implicit=subject.implicit, unit=self.unit)
            if run.processes and not is_stored:
                self._store.put(_interrupted(measured), implicit=subject.implicit, unit=self.unit)
            raise
        self._work.arrays.remove_unneeded()

    def _keep_interrupted(self, subject: Subject) -> None:
        run = subject.series.run
        if run.processes and not self._is_done(run.id, implicit=subject.implicit):
            self._store.put(_interrupted(run), implicit=subject.implicit, unit=self.unit)


def known_reference(work: Work, planned: Planned, unit: str | None) -> Run | None:
    """The run on `unit` that `planned` is compared with; None for a reference.

    Raises AbortedError where nothing was measured to compare it with.
    """
    if planned.reference is None:
        return None
    if known := _usable(work, planned.reference, unit, with_arrays=False):
        return known[0]
    raise AbortedError


def _usable(work: Work, reference: Planned, unit: str | None, *, with_arrays: bool) -> list[Run]:
    """The finished runs of a reference on `unit`, the best first."""
    selected = work.planned.has_reference(reference.case)
    known = work.store.usable_references(reference.case.id, unit, selected=selected)
    return [run for run in known if run.failure or not with_arrays or work.arrays.has(run)]


def _unit_of(run: Run) -> str | None:
    return run.processes[0].environment.unit if run.processes else None


def _interrupted(run: Run) -> Run:
    reason = REASON_OF_PROGRESS[Progress.INTERRUPTED]
    return msgspec.structs.replace(run, reason=reason, progress=Progress.INTERRUPTED)


def _has_failed_to_start(run: Run) -> bool:
    failure = run.failure
    return failure is not None and failure.phase in BEFORE_ANY_WORK and failure.kind in FAULTS_OF_A_CARD
