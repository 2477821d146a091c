"""Owns the workers and their order: case id -> Run, measured once, build by build, references first."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from perf_tests.harness.execution.launcher import Launcher, Planned
from perf_tests.harness.execution.replicate import Replicate, Twin, blank
from perf_tests.harness.execution.sampling import Decide, EndSampling, Series, fixed_samples
from perf_tests.harness.execution.worker_process import COMMAND, Worker
from perf_tests.harness.runs.directory import CAPTURES, RECORD
from perf_tests.harness.runs.record import (
    FORMAT_VERSION,
    REASON_OF_PROGRESS,
    Progress,
    Run,
    RunRecord,
    SamplingEnd,
    Status,
    Verdict,
)
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.errors import UsageError, WorkerError
from perf_tests.protocol.messages import Trace
from perf_tests.tables.cases import Case

Prepare = Callable[[Run, Run | None], Run]
Admit = Callable[[str], str | None]


@dataclass(slots=True, eq=False)
class Subject:
    """A case while its build is measured."""

    planned: Planned
    stem: str
    """What its files are called."""
    store: dict[str, Run]
    """Where its run is kept: with the cases, or with the references."""
    series: Series


class Campaign:
    """Everything measured in one session, in a directory of its own (see `prepare_run_directory`).

    Cases of one build share a worker, small workloads first; a case with injected faults has its own.
    """

    def __init__(
        self,
        *,
        plan: tuple[Planned, ...],
        out: Path,
        python: str,
        decide: Decide,
        max_processes: int,
        end_sampling: EndSampling = fixed_samples,
        started_at: str,
        command_line: str,
        command: tuple[str, ...] = COMMAND,
        warmups: int = 1,
        prepare: Prepare = lambda run, reference: run,
        admit: Admit = lambda case_id: None,
        artifacts: Path | None = None,
        plans: Path | None = None,
        resumed: RunRecord | None = None,
        unit: str | None = None,
    ) -> None:
        """`end_sampling` is asked after each sample of a process without a twin; `prepare` gets each run that
        did not fail, with its reference, and returns what is kept of it. `admit` is asked before a case is
        begun, and answers why it is not; `artifacts` is the folder of compile-cache files, `plans` that of
        the plans of searches, None for one in `out`; `resumed` is the record that `out` holds already, and
        `unit` this machine's `Environment.unit` where it is known, so that no case is compared with a
        reference of another card.
        """
        self._planned = {planned.case.id: planned for planned in plan}
        self._out = out.resolve()
        self._decide = decide
        self._max_processes = max_processes
        self._end_sampling = end_sampling
        self._warmups = warmups
        self._started_at = resumed.created_at if resumed else started_at
        self._command_line = resumed.command if resumed else command_line
        self._prepare = prepare
        self._admit = admit
        self._unit = unit
        self._runs: dict[str, Run] = {}
        self._references: dict[str, Run] = {}
        self._implicit = _implicit_references(plan)
        self._others: tuple[Run, ...] = ()
        self._foreign: tuple[Run, ...] = ()
        self._launcher = Launcher(
            self._out,
            python,
            command,
            environment=resumed.environment if resumed else None,
            artifacts=artifacts,
            plans=plans,
        )
        self._twin: Twin | None = None
        self._missing: tuple[str, ...] = ()
        self._is_closed = False
        if resumed:
            self._take_over(resumed)

    def run(self, case_id: str) -> Run:
        """The planned case's run, measured at the first request; a failed one is a Run with a failure.

        Raises UsageError for a case that is not planned, PerfError where the directory cannot be written;
        what was measured is kept either way.
        """
        planned = self._lookup(case_id)
        if not self._is_done(case_id, self._runs):
            self._measure_build(planned, self._runs)
        return self._runs[case_id]

    def reference(self, case_id: str) -> Run | None:
        """The run that the case is compared with, measured if need be; None for a case that is one."""
        planned = self._lookup(case_id)
        run = self._runs.get(case_id)
        unit = run.processes[0].environment.unit if run and run.processes else self._unit
        return self._reference(planned, unit)

    def file(self, case_id: str, verdicts: tuple[Verdict, ...], status: Status, reason: str) -> Run:
        """Put verdicts and the outcome into the case's record; a verdict replaces the metric's former one.

        A case that was not measured gets a run without processes: it was unsupported, or time ran out.
        Returns the run as it is filed.
        """
        planned = self._lookup(case_id)
        run = self._runs.get(case_id) or blank(planned)
        filed = {verdict.metric: verdict for verdict in (*run.verdicts, *verdicts)}
        # Without a verdict, INCONCLUSIVE is no outcome.
        is_judged = filed or status is not Status.INCONCLUSIVE
        self._runs[case_id] = msgspec.structs.replace(
            run,
            verdicts=tuple(filed.values()),
            status=status,
            reason=reason,
            progress=Progress.JUDGED if is_judged else run.progress,
        )
        self._write()
        return self._runs[case_id]

    def set_missing(self, missing: tuple[str, ...]) -> None:
        """Note the planned `case: metric` pairs that nothing was said about; `close` writes them."""
        self._missing = missing

    @property
    def record(self) -> RunRecord:
        """All of it, cases in the order of the plan, those of a resumed run that are not planned last."""
        return RunRecord(
            format_version=FORMAT_VERSION,
            created_at=self._started_at,
            command=self._command_line,
            environment=self._launcher.environment,
            cases=(
                *(self._runs[case_id] for case_id in self._planned if case_id in self._runs),
                *self._others,
            ),
            references=(*self._references.values(), *self._foreign),
            missing=self._missing,
        )

    def interrupt(self) -> None:
        """Kill all workers at once, then do what `close` does."""
        self._launcher.kill_all()
        self.close()

    def close(self) -> None:
        """End all workers and write the record. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._twin:
            self._twin.close()
        self._launcher.kill_all()
        self._write()

    # What an earlier session left

    def _take_over(self, resumed: RunRecord) -> None:
        kept = [run for run in resumed.cases if self._is_as_planned(run)]
        self._runs = {run.id: _to_be_judged(run) for run in kept}
        self._others = tuple(run for run in resumed.cases if run.id not in self._planned)
        here = [run for run in resumed.references if _is_of_unit(run, self._unit)]
        self._references = {run.id: run for run in here}
        self._foreign = tuple(run for run in resumed.references if run not in here)

    def _is_as_planned(self, run: Run) -> bool:
        planned = self._planned.get(run.id)
        if planned is None or run.status is Status.NOT_RUN:
            return False
        now = blank(planned)
        return (run.digest, run.platform, run.injected) == (now.digest, now.platform, now.injected)

    def _is_done(self, case_id: str, store: dict[str, Run]) -> bool:
        return case_id in store and store[case_id].progress is not Progress.INTERRUPTED

    # References

    def _lookup(self, case_id: str) -> Planned:
        if case_id in self._planned:
            return self._planned[case_id]
        near = ", ".join(difflib.get_close_matches(case_id, self._planned, n=3)) or "none is near"
        raise UsageError(
            f"no case {case_id!r} among the {len(self._planned)} of this session; nearest: {near}"
        )

    def _reference(self, planned: Planned, unit: str | None) -> Run | None:
        if planned.case.is_reference or planned.smoke:
            return None
        reference = planned.case.reference
        if self._is_planned_reference(reference):
            self.run(reference.id)
        known = [run for run in self._known(reference) if _is_of_unit(run, unit)]
        if known:
            return known[0]
        # Nobody asked for it, or it was measured on another card, or not begun for want of time.
        self._measure_build(Planned(reference, planned.platform), self._references)
        return self._references[reference.id]

    def _known(self, reference: Case) -> list[Run]:
        """The runs there are of `reference`, on whatever card."""
        planned = [self._runs] if self._is_planned_reference(reference) else []
        stores = [*planned, self._references]
        found = [store[reference.id] for store in stores if self._is_done(reference.id, store)]
        of_other_cards = [run for run in self._foreign if run.id == reference.id]
        return [run for run in (*found, *of_other_cards) if run.status is not Status.NOT_RUN]

    def _is_planned_reference(self, reference: Case) -> bool:
        planned = self._planned.get(reference.id)
        return planned is not None and not planned.injections

    # Measuring

    def _measure_build(self, wanted: Planned, store: dict[str, Run]) -> None:
        """Measure `wanted` and all that can share its workers."""
        # Not begun, no reference: it would be measured for nothing.
        subjects = [subject for subject in self._sharing(wanted, store) if self._is_admitted(subject)]
        for subject in subjects:
            self._reference(subject.planned, self._unit)
        try:
            for subject in subjects:
                self._keep(subject)  # an earlier session measured all of it, and was stopped there
            while waiting := [subject for subject in subjects if not subject.series.is_over]:
                while waiting := [subject for subject in waiting if self._is_admitted(subject)]:
                    waiting = self._one_worker(waiting)
        except BaseException:  # Ctrl-C, SIGTERM, a full disk: only finished processes are kept
            for subject in subjects:
                self._keep_interrupted(subject)
            raise

    def _sharing(self, wanted: Planned, store: dict[str, Run]) -> list[Subject]:
        """`wanted` and the cases still to be measured of the same build, small workloads first."""
        first = self._subject(wanted, store)
        if wanted.injections:
            return [first]
        others = [
            self._subject(planned, self._runs)
            for planned in self._planned.values()
            if _share_worker(planned, wanted) and not self._is_done(planned.case.id, self._runs)
        ]
        references = [
            self._subject(planned, self._references)
            for planned in self._implicit.values()
            if _share_worker(planned, wanted) and not self._is_done(planned.case.id, self._references)
        ]
        found = [
            subject
            for subject in (*others, *references)
            if (subject.stem, subject.store is store) != (first.stem, True)
        ]
        return sorted((first, *found), key=lambda subject: subject.planned.case.worker_order)

    def _subject(self, planned: Planned, store: dict[str, Run]) -> Subject:
        case_id = planned.case.id
        # A planned case with the same id but with injections has files of its own.
        stem = case_id if store is self._runs else f"{case_id}.reference"
        begun = store.get(case_id)
        start = (
            msgspec.structs.replace(begun, reason="", progress=Progress.PLANNED) if begun else blank(planned)
        )
        return Subject(planned, stem, store, Series(start, self._decide, self._max_processes))

    def _is_admitted(self, subject: Subject) -> bool:
        """Whether the case is begun; a reference is, for the case that waits for it was admitted."""
        if subject.series.run.processes or subject.store is not self._runs:
            return True
        refusal = self._admit(subject.planned.case.id)
        if refusal is not None:
            subject.series.refused(refusal)
            subject.store[subject.planned.case.id] = subject.series.run
            self._write()
        return refusal is None

    def _one_worker(self, subjects: Sequence[Subject]) -> list[Subject]:
        """One more process of each of `subjects`, in a worker they share; those it did not come to."""
        first, index = subjects[0], subjects[0].series.index
        subject, replicate = first, None
        try:
            with self._launcher.start(first.planned, first.stem, index) as worker:
                for subject in subjects:
                    if replicate is not None and not self._is_admitted(subject):
                        continue
                    replicate = self._replicate(worker, subject, replicate, first.stem, index)
                    self._measure(replicate, subject, subjects)
                    subject.series.took(replicate.process(self._out))
                    self._keep(subject)
        except WorkerError as error:
            self._launcher.discard_cache(first.stem)
            ours = replicate is not None and replicate.planned is subject.planned
            partial = replicate.process(self._out) if replicate and ours and replicate.loaded else None
            subject.series.failed(error.failure, partial)
            self._keep(subject)
        except BaseException:  # killed in the middle, too: what it was writing cannot be trusted
            self._launcher.discard_cache(first.stem)
            raise
        return list(subjects[list(subjects).index(subject) + 1 :])

    def _replicate(
        self, worker: Worker, subject: Subject, before: Replicate | None, stem: str, index: int
    ) -> Replicate:
        artifacts = self._launcher.artifacts_of(subject.planned.case, worker)
        if before is not None:
            return before.turn(subject.planned, artifacts)
        plan = self._launcher.plan_of(subject.planned.case, worker)
        return Replicate(worker, subject.planned, self._launcher.log_name(stem, index), artifacts, plan)

    def _measure(self, replicate: Replicate, subject: Subject, sharing: Sequence[Subject]) -> None:
        if not replicate.turned:
            # Of all of them now: once it is quantized, nothing tells what it was before.
            traces = ((each.planned.case, self._files(each)) for each in sharing if not each.planned.smoke)
            replicate.build(tuple(Trace(case=case, stem=str(stem)) for case, stem in traces if stem))
        replicate.warm_up(self._warmups)
        files = self._files(subject)
        self._sample(replicate, files)
        replicate.inspect(None if subject.planned.smoke else files)

    def _files(self, subject: Subject) -> Path | None:
        """The stem of what the first process of a case leaves to be compared; the others leave nothing."""
        index = subject.series.index
        return self._out / CAPTURES / f"{subject.stem}.{index}" if index == 0 else None

    def _sample(self, replicate: Replicate, capture: Path | None) -> None:
        planned = replicate.planned
        twin = self._twin_of(planned) if planned.platform.interleave_twin and not planned.smoke else None
        while replicate.sampling_end is None:
            index = len(replicate.samples)
            turns: list[Callable[[], object]] = [partial(replicate.sample, capture)]
            if twin is not None:
                # Alternately first, so that a drift of the machine favours neither.
                turns.insert(index % 2, partial(replicate.sample_twin, twin))
            for generate in turns:
                generate()
            replicate.sampling_end = self._sampling_end(replicate, alone=twin is None)

    def _sampling_end(self, replicate: Replicate, *, alone: bool) -> SamplingEnd | None:
        planned = replicate.planned
        if planned.smoke:
            return SamplingEnd.FIXED
        # A ratio to a twin that shares the machine does not become precise.
        end_sampling = self._end_sampling if alone else fixed_samples
        return end_sampling(planned.case, planned.platform, replicate.samples)

    def _keep(self, subject: Subject) -> None:
        """Store the run of a case that is over, for good; before that it is only in its series."""
        if not subject.series.is_over:
            return
        run = msgspec.structs.replace(subject.series.run, progress=Progress.MEASURED)
        if run.failure is None:
            unit = run.processes[0].environment.unit if run.processes else self._unit
            run = msgspec.structs.replace(run, reason=REASON_OF_PROGRESS[Progress.MEASURED])
            run = self._prepare(run, self._reference(subject.planned, unit))
        subject.store[subject.planned.case.id] = run
        self._write()

    def _keep_interrupted(self, subject: Subject) -> None:
        run = subject.series.run
        if run.processes and not self._is_done(run.id, subject.store):
            reason = REASON_OF_PROGRESS[Progress.INTERRUPTED]
            subject.store[run.id] = msgspec.structs.replace(run, reason=reason, progress=Progress.INTERRUPTED)

    def _twin_of(self, planned: Planned) -> Twin:
        twin = Planned(planned.case.fp32_twin, planned.platform)
        if self._twin is None or self._twin.planned != twin:
            if self._twin:
                self._twin.close()
            self._twin = Twin(twin, self._launcher, self._warmups, self._references)
        self._twin.serve(planned.case.id)
        return self._twin

    def _write(self) -> None:
        write_record(self._out / RECORD, self.record)


def _implicit_references(plan: Sequence[Planned]) -> dict[str, Planned]:
    """The references of the plan that are not themselves cases of it, free of faults."""
    planned = {each.case.id for each in plan if not each.injections}
    needed = [each for each in plan if not each.smoke and not each.case.is_reference]
    return {
        each.case.reference.id: Planned(each.case.reference, each.platform)
        for each in needed
        if each.case.reference.id not in planned
    }


def _share_worker(one: Planned, other: Planned) -> bool:
    """Whether one worker can hold both; a fault is armed for a whole worker."""
    return (
        one.case.worker_key == other.case.worker_key
        and one.platform == other.platform
        and not one.injections
        and not other.injections
    )


def _is_of_unit(run: Run, unit: str | None) -> bool:
    """Whether the run was measured on this card or processor; one that failed before says nothing."""
    return unit is None or not run.processes or run.processes[0].environment.unit == unit


def _to_be_judged(run: Run) -> Run:
    """A finished run of an earlier session: its verdicts were those of that session."""
    if run.failure is not None or run.progress is Progress.INTERRUPTED:
        return run
    return msgspec.structs.replace(
        run,
        status=Status.INCONCLUSIVE,
        reason=REASON_OF_PROGRESS[Progress.MEASURED],
        progress=Progress.MEASURED,
        verdicts=(),
    )
