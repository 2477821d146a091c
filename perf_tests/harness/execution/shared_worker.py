"""One worker that measures several cases of a build in turn, and the fp32 twin that generates with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from perf_tests.harness.execution.built_twins import made_twin
from perf_tests.harness.execution.launcher import Launcher
from perf_tests.harness.execution.planned import Planned, blank
from perf_tests.harness.execution.replicate import MadeTwin, Replicate
from perf_tests.harness.execution.sampling import SamplingRules, Series, fixed_samples
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.records.process_ends import SamplingEnd
from perf_tests.harness.runs.record import Progress, Run, Status, status_of
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Phase, Trace
from perf_tests.protocol.reports import Sample


@dataclass(slots=True, eq=False)
class Subject:
    """A case while its build is measured."""

    planned: Planned
    implicit: bool
    """Whether nobody selected it: other cases are compared with it."""
    series: Series

    @property
    def stem(self) -> str:
        """What its files are called. A selected case with the same id, but with faults, has its own files."""
        case_id = self.planned.case.id
        return f"{case_id}.reference" if self.implicit else case_id


@dataclass(frozen=True, slots=True)
class SharedWorker:
    """Measures one process of each case that it is given, in one worker."""

    launcher: Launcher
    rules: SamplingRules
    twins: Twins
    admit: Callable[[Subject], bool]
    """Asked before each case but the first: whether it is started."""
    keep: Callable[[Subject], None]
    """Called when a process of a case is complete or has failed."""
    hush: Callable[[], None]
    """Called before anything is timed: returns once nothing else computes on behalf of this device."""

    def measure(self, subjects: Sequence[Subject]) -> list[Subject]:
        """Measure the `subjects` until a process fails; returns those that are left after it.

        A failed worker is a failure of the case that it was measuring. On any other exception, Ctrl-C
        included, no worker is left and only complete processes are in the series.
        """
        first, index = subjects[0], subjects[0].series.index
        subject, replicate = first, None
        if index == 0:  # what a session has left that was killed would turn a cold compilation warm
            self.launcher.files.discard_cache(first.stem)
        try:
            made = made_twin(self.launcher, first.planned, first.stem, index, self._timed)
            with self.launcher.start(first.planned, first.stem, index) as worker:
                for subject in subjects:
                    if replicate is not None and not self.admit(subject):
                        continue
                    replicate = replicate or self._first_replicate(worker, subject, made, index)
                    replicate = self._replicate(replicate, subject)
                    self._measure(replicate, subject, subjects)
                    subject.series.took(replicate.process(self.launcher.out))
                    self.keep(subject)
        except WorkerError as error:
            self.launcher.files.discard_cache(first.stem)
            self.launcher.raise_if_aborted()
            is_of_subject = replicate is not None and replicate.planned is subject.planned
            is_loaded = is_of_subject and replicate is not None and replicate.loaded is not None
            partial = replicate.process(self.launcher.out) if is_loaded and replicate else None
            subject.series.failed(error.failure, partial)
            self.keep(subject)
        except BaseException:  # the worker may have been killed while it was writing
            self.launcher.files.discard_cache(first.stem)
            raise
        return list(subjects[list(subjects).index(subject) + 1 :])

    def _first_replicate(
        self, worker: Worker, subject: Subject, made: MadeTwin | None, index: int
    ) -> Replicate:
        case = subject.planned.case
        return Replicate(
            worker,
            subject.planned,
            self.launcher.files.log_name(subject.stem, index),
            self.launcher.files.artifacts_of(case, worker),
            self.launcher.files.plan_of(case, worker),
            index=index,
            watch=self.launcher.watch,
            made=made,
        )

    def _replicate(self, previous: Replicate, subject: Subject) -> Replicate:
        if previous.planned is subject.planned:
            return previous
        artifacts = self.launcher.files.artifacts_of(subject.planned.case, previous.worker)
        return previous.switch_workload(subject.planned, artifacts, subject.series.index)

    def _measure(self, replicate: Replicate, subject: Subject, sharing: Sequence[Subject]) -> None:
        if not replicate.switched:
            # Of all of them now: quantizing overwrites what the transformer was before.
            traces = ((each.planned.case, self._files(each)) for each in sharing if each.planned.is_compared)
            replicate.build(tuple(Trace(case=case, stem=str(stem)) for case, stem in traces if stem))
        replicate.warm_up(self.rules.warmups)
        files = self._files(subject)
        with self._timed():
            self._sample(replicate, subject, files)
        replicate.inspect(
            files if subject.planned.is_compared else None, work=not subject.planned.verified_only
        )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """A block in which nothing else computes on behalf of this device."""
        self.hush()
        with self.launcher.quiet():
            yield

    def _files(self, subject: Subject) -> Path | None:
        """The stem of the files that the first process of a case leaves to be compared; None for others, and
        for what shows no pictures."""
        index = subject.series.index
        shows = index == 0 and subject.planned.case.is_generating
        return self.launcher.files.captures(subject.stem, index) if shows else None

    def _sample(self, replicate: Replicate, subject: Subject, capture: Path | None) -> None:
        planned = replicate.planned
        interleaves = planned.platform.interleave_twin
        # No time is judged of what is only verified, or only compared with.
        is_timed = not (planned.verified_only or subject.implicit)
        twin = self.twins.serving(planned) if interleaves and is_timed else None
        while replicate.sampling_end is None:
            generations: list[Callable[[], object]] = [partial(replicate.sample, capture)]
            if twin is not None:
                # Which goes first alternates, so that a drift of the machine favours neither.
                place = len(replicate.samples) % 2
                generations.insert(place, partial(_sample_twin, replicate, twin))
            for generate in generations:
                generate()
            replicate.sampling_end = self._sampling_end(replicate, alone=not interleaves)
        if not interleaves:
            replicate.retake_stalled()

    def _sampling_end(self, replicate: Replicate, *, alone: bool) -> SamplingEnd | None:
        planned = replicate.planned
        if planned.verified_only:
            return SamplingEnd.FIXED
        # More samples do not make a ratio to a twin precise that shares the machine.
        end_sampling = self.rules.end_sampling if alone else fixed_samples
        return end_sampling(planned.case, planned.platform, replicate.samples)


def _sample_twin(replicate: Replicate, twin: Twin) -> None:
    replicate.twin_samples.append(twin.sample(len(replicate.twin_samples)))


class Twin:
    """The fp32 worker that generates alternately with the cases of one pipeline.

    It switches between their workloads. Each picture that it repeats must be the one that it generated first,
    which shows that no case has left it in another state; otherwise it has failed. It is restarted when it
    fails, once for each of these cases.
    """

    def __init__(
        self, planned: Planned, launcher: Launcher, warmups: int, references: dict[str, Run]
    ) -> None:
        """Begin with the workload of `planned`. The runs of the twin, one for each workload, are stored in
        `references`, by case id."""
        self.planned = planned
        self._launcher = launcher
        self._warmups = warmups
        self._references = references
        self._replicate: Replicate | None = None
        self._numbers = itertools.count()
        self._served = ""
        self._restarts_left = 1
        self._first_outputs: dict[tuple[str, int], str] = {}
        """(case id of the workload, pair) -> sha256 of what was generated for it first."""

    def serve(self, planned: Planned, case_id: str) -> None:
        """Generate the workload of `planned`, in the same build, for the case of that id from now on, in
        whichever of its processes."""
        self.planned = planned
        if case_id != self._served:
            self._served, self._restarts_left = case_id, 1

    def sample(self, place: int) -> Sample:
        """Generate what the case generates as its sample number `place`, from 0.

        Raises WorkerError, naming the twin, where it fails and was restarted before.
        """
        try:
            self._replicate = self._ready()
            sample = self._replicate.sample(place=place)
            self._require_repeated(sample, self._replicate.worker)
        except WorkerError as error:
            self._replicate = None
            failure = msgspec.structs.replace(
                error.failure, message=f"fp32 twin {self.planned.case.id}: {error.failure.message}"
            )
            status = status_of(failure)
            self._note(failure=failure, status=status, reason=failure.message, progress=Progress.MEASURED)
            if not self._restarts_left:
                raise WorkerError(failure) from error
        else:
            return sample
        self._restarts_left -= 1
        return self.sample(place)

    def close(self) -> None:
        """End the worker, and note what it spent on generating."""
        if self._replicate:
            self._replicate.worker.close()
            self._note_spent(self._replicate)
            self._replicate = None

    def _ready(self) -> Replicate:
        """The twin, warmed up for its present workload."""
        if self._replicate is None:
            return self._build()
        if self._replicate.planned != self.planned:
            return self._switch(self._replicate)
        return self._replicate

    def _build(self) -> Replicate:
        index = next(self._numbers)
        stem = f"{self.planned.case.id}.reference"
        worker = self._launcher.start(self.planned, stem, index)
        log = self._launcher.files.log_name(stem, index)
        replicate = Replicate(worker, self.planned, log, index=index, watch=self._launcher.watch)
        try:
            replicate.build()
            replicate.warm_up(self._warmups)
        except BaseException:  # Ctrl-C, too, must not leave a process behind
            worker.kill()
            raise
        self._note_process(replicate)
        return replicate

    def _switch(self, before: Replicate) -> Replicate:
        self._note_spent(before)
        replicate = before.switch_workload(self.planned, None, before.index)
        replicate.warm_up(self._warmups)
        self._note_process(replicate)
        return replicate

    def _require_repeated(self, sample: Sample, worker: Worker) -> None:
        of = (self.planned.case.id, sample.pair)
        first = self._first_outputs.setdefault(of, sample.output_sha256)
        if sample.output_sha256 != first:
            worker.disbelieve(
                Phase.GENERATE,
                f"its output for pair {sample.pair} has the sha256 {sample.output_sha256[:12]}, and had "
                f"{first[:12]} before: a case that it generated with has left it in another state",
            )

    @property
    def _run(self) -> Run:
        return self._run_of(self.planned)

    def _run_of(self, planned: Planned) -> Run:
        return self._references.get(planned.case.id) or blank(planned)

    def _note(self, **changes: object) -> None:
        self._references[self.planned.case.id] = msgspec.structs.replace(self._run, **changes)

    def _note_process(self, replicate: Replicate) -> None:
        self._note(
            processes=(*self._run.processes, replicate.process(self._launcher.out)),
            failure=None,
            status=Status.INCONCLUSIVE,
            reason="measured beside others, not judged",
            progress=Progress.MEASURED,
        )

    def _note_spent(self, replicate: Replicate) -> None:
        """Complete the last process of the workload of `replicate` by what it spent on generating."""
        run = self._run_of(replicate.planned)
        *earlier, last = run.processes
        complete = msgspec.structs.replace(last, build=replicate.process(self._launcher.out).build)
        self._references[run.id] = msgspec.structs.replace(run, processes=(*earlier, complete))


class Twins:
    """The fp32 twin of the pipeline that is measured at present; one at a time, since it holds its memory."""

    def __init__(self, launcher: Launcher, warmups: int, references: dict[str, Run]) -> None:
        """The runs of the twins are stored in `references`, by case id."""
        self._launcher = launcher
        self._warmups = warmups
        self._references = references
        self._twin: Twin | None = None

    def serving(self, planned: Planned) -> Twin:
        """The twin of the case; the twin of another pipeline is ended first."""
        wanted = planned.fp32_twin
        if self._twin is None or not self._twin.planned.shares_worker_with(wanted):
            self.close()
            self._twin = Twin(wanted, self._launcher, self._warmups, self._references)
        self._twin.serve(wanted, planned.case.id)
        return self._twin

    def close(self) -> None:
        """End the twin, if there is one. Idempotent."""
        if self._twin:
            self._twin.close()
            self._twin = None
