"""Owns the workers and their order: case id -> Run, measured once, references first."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from perf_tests.harness.attempt import Attempt, Launcher, Planned, Twin, blank
from perf_tests.harness.errors import UsageError, WorkerError
from perf_tests.harness.records import (
    FORMAT_VERSION,
    Process,
    Run,
    RunRecord,
    Status,
    Verdict,
    write_record,
)
from perf_tests.harness.rundir import CAPTURES, RECORD
from perf_tests.harness.sampling import Decide, ProcessError, measure
from perf_tests.harness.workers import COMMAND

Prepare = Callable[[Run, Run | None], Run]


class Campaign:
    """Everything measured in one session, in a directory of its own (see `prepare_run_directory`)."""

    def __init__(
        self,
        *,
        plan: tuple[Planned, ...],
        out: Path,
        python: str,
        decide: Decide,
        max_processes: int,
        started_at: str,
        command_line: str,
        command: tuple[str, ...] = COMMAND,
        warmups: int = 1,
        prepare: Prepare = lambda run, reference: run,
    ) -> None:
        """`prepare` gets each run that did not fail, with its reference, and returns what is kept of it."""
        self._planned = {planned.case.id: planned for planned in plan}
        self._out = out.resolve()
        self._launcher = Launcher(self._out, python, command)
        self._decide = decide
        self._max_processes = max_processes
        self._warmups = warmups
        self._started_at = started_at
        self._command_line = command_line
        self._prepare = prepare
        self._runs: dict[str, Run] = {}
        self._references: dict[str, Run] = {}
        self._twin: Twin | None = None
        self._missing: tuple[str, ...] = ()
        self._is_closed = False

    def run(self, case_id: str) -> Run:
        """The planned case's run, measured at the first request; a failed one is a Run with a failure.

        Raises UsageError for a case that is not planned, PerfError where the directory cannot be written;
        what was measured is kept either way.
        """
        planned = self._lookup(case_id)
        if case_id not in self._runs:
            reference = self._reference(planned)
            self._measure(planned, reference, stem=case_id, store=self._runs)
            self._write()
        return self._runs[case_id]

    def reference(self, case_id: str) -> Run | None:
        """The run that the case is compared with, measured if need be; None for a case that is one."""
        return self._reference(self._lookup(case_id))

    def file(self, case_id: str, verdicts: tuple[Verdict, ...], status: Status, reason: str) -> Run:
        """Put verdicts and the outcome into the case's record; a verdict replaces the metric's former one.

        A case that was not measured gets a run without processes: it was unsupported, or time ran out.
        Returns the run as it is filed.
        """
        planned = self._lookup(case_id)
        run = self._runs.get(case_id) or blank(planned)
        filed = {verdict.metric: verdict for verdict in (*run.verdicts, *verdicts)}
        self._runs[case_id] = msgspec.structs.replace(
            run, verdicts=tuple(filed.values()), status=status, reason=reason
        )
        self._write()
        return self._runs[case_id]

    def set_missing(self, missing: tuple[str, ...]) -> None:
        """Note the planned `case: metric` pairs that nothing was said about; `close` writes them."""
        self._missing = missing

    @property
    def record(self) -> RunRecord:
        """All of it, cases in the order of the plan."""
        return RunRecord(
            format_version=FORMAT_VERSION,
            created_at=self._started_at,
            command=self._command_line,
            environment=self._launcher.environment,
            cases=tuple(self._runs[case_id] for case_id in self._planned if case_id in self._runs),
            references=tuple(self._references.values()),
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

    def _lookup(self, case_id: str) -> Planned:
        if case_id in self._planned:
            return self._planned[case_id]
        near = ", ".join(difflib.get_close_matches(case_id, self._planned, n=3)) or "none is near"
        raise UsageError(
            f"no case {case_id!r} among the {len(self._planned)} of this session; nearest: {near}"
        )

    def _reference(self, planned: Planned) -> Run | None:
        if planned.case.is_reference:
            return None
        implicit = Planned(planned.case.reference, planned.platform)
        reference_id = implicit.case.id
        if reference_id in self._planned and not self._planned[reference_id].injections:
            return self.run(reference_id)
        if reference_id not in self._references:
            # A planned case with the same id but with injections has files of its own.
            self._measure(implicit, None, stem=f"{reference_id}.reference", store=self._references)
        return self._references[reference_id]

    def _measure(self, planned: Planned, reference: Run | None, *, stem: str, store: dict[str, Run]) -> None:
        underway = [blank(planned)]
        try:
            run = measure(
                partial(self._process, planned, stem),
                underway[0],
                self._decide,
                self._max_processes,
                underway.append,
            )
        except BaseException:  # Ctrl-C, SIGTERM, a full disk: only finished processes are kept
            if underway[-1].processes:
                store[planned.case.id] = msgspec.structs.replace(underway[-1], reason="interrupted")
            raise
        if run.failure is None:
            run = self._prepare(msgspec.structs.replace(run, reason="measured, not judged"), reference)
        store[planned.case.id] = run

    def _process(self, planned: Planned, stem: str, index: int) -> Process:
        attempt = None
        capture = self._out / CAPTURES / f"{stem}.{index}" if index == 0 else None
        try:
            with self._launcher.start(planned, stem, index) as worker:
                attempt = Attempt(worker, planned, self._launcher.log_name(stem, index))
                attempt.build(self._warmups)
                self._sample(attempt, capture)
                attempt.inspect()
                return attempt.process(self._out)
        except WorkerError as error:
            self._launcher.discard_cache(stem)
            process = attempt.process(self._out) if attempt and attempt.loaded else None
            raise ProcessError(error.failure, process) from error
        except BaseException:  # killed in the middle, too: what it was writing cannot be trusted
            self._launcher.discard_cache(stem)
            raise

    def _sample(self, attempt: Attempt, capture: Path | None) -> None:
        platform = attempt.planned.platform
        twin = self._twin_of(attempt.planned) if platform.interleave_twin else None
        for index in range(platform.samples):
            last = index == platform.samples - 1
            case_generates = partial(attempt.sample, capture if last else None)
            if twin is None:
                case_generates()
                continue
            twin_generates = partial(attempt.sample_twin, twin)
            # Alternately first, so that a drift of the machine favours neither.
            pair = (twin_generates, case_generates) if index % 2 == 0 else (case_generates, twin_generates)
            for generate in pair:
                generate()

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
