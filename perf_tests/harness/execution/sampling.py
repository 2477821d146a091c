"""How many processes a case takes, and how many samples each: injected rules are asked after each of them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from perf_tests.harness.runs.record import STATUS_OF_FAILURE, Process, Run, SamplingEnd, Status
from perf_tests.protocol.messages import Failure
from perf_tests.protocol.reports import Sample
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Platform

PROCESSES = 1
"""Fresh processes per case to begin with (`--perf-processes`)."""
MAX_PROCESSES = 5
"""Fresh processes per case at most (`--perf-max-processes`)."""


class Answer(StrEnum):
    """What a sampling rule may say about the processes measured so far."""

    ENOUGH = "enough"
    MORE = "more"
    RETAKE = "retake"
    """The last process is not usable: another takes its place."""


class Decide(Protocol):
    """A sampling rule: pure, asked after each process, sees the whole run."""

    def __call__(self, run: Run, /) -> Answer: ...


def fixed_processes(count: int) -> Decide:
    """The rule that asks for `count` processes, whatever they show."""

    def decide(run: Run, /) -> Answer:
        return Answer.ENOUGH if len(run.processes) >= count else Answer.MORE

    return decide


class EndSampling(Protocol):
    """A rule for the samples of one process: pure, asked after each of them; None: one more."""

    def __call__(
        self, case: Case, platform: Platform, samples: Sequence[Sample], /
    ) -> SamplingEnd | None: ...


def fixed_samples(_case: Case, platform: Platform, samples: Sequence[Sample], /) -> SamplingEnd | None:
    """The rule that asks for as many samples as the platform, whatever they show."""
    return SamplingEnd.FIXED if len(samples) >= platform.samples else None


class Series:
    """The processes of one case as they come in, until the rule has enough of them."""

    def __init__(self, start: Run, decide: Decide, max_processes: int) -> None:
        """`start` may hold processes of an interrupted session, which count towards `max_processes`."""
        self.run = start
        self._decide = decide
        self._max_processes = max_processes
        self._taken = len(start.processes)
        # Not yet known of processes of before: the rule may ask for a reference, which may not be there yet.
        self._is_over: bool | None = None if start.processes else False

    @property
    def is_over(self) -> bool:
        """Whether no further process is wanted."""
        if self._is_over is None:
            self._is_over = self._decide(self.run) is Answer.ENOUGH
        return self._is_over or self._taken >= self._max_processes

    @property
    def index(self) -> int:
        """The place of the next process in the run, from 0."""
        return len(self.run.processes)

    def took(self, process: Process) -> None:
        """One more process was measured; it is in `run` before the rule is asked."""
        self._taken += 1
        self.run = msgspec.structs.replace(self.run, processes=(*self.run.processes, process))
        answer = self._decide(self.run)
        self.run = _looked(self.run, answer)
        self._is_over = answer is Answer.ENOUGH

    def failed(self, failure: Failure, partial: Process | None) -> None:
        """A process failed: the series ends with its status, and with what there is of it."""
        self._is_over = True
        self.run = msgspec.structs.replace(
            self.run,
            processes=self.run.processes if partial is None else (*self.run.processes, partial),
            failure=failure,
            status=STATUS_OF_FAILURE[failure.kind],
            reason=failure.message,
        )

    def refused(self, reason: str) -> None:
        """The case is not begun: the time of the session is spent."""
        self._is_over = True
        self.run = msgspec.structs.replace(self.run, status=Status.NOT_RUN, reason=reason)


def _looked(run: Run, answer: Answer) -> Run:
    count = len(run.processes)
    look = f"{count} {'process' if count == 1 else 'processes'}: {answer}"
    kept = run.processes[:-1] if answer is Answer.RETAKE else run.processes
    return msgspec.structs.replace(run, processes=kept, looks=(*run.looks, look))
