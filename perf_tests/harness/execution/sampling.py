"""How many processes measure a case, and how many samples each takes: injected rules decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec

from perf_tests.harness.records.process_ends import SamplingEnd
from perf_tests.harness.runs.record import Process, Run, Status, status_of
from perf_tests.protocol.messages import Failure
from perf_tests.protocol.reports import Sample
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Platform

MAX_PROCESSES = 5
"""The most fresh processes per case, unless `--perf-max-processes` says otherwise."""


class Answer(StrEnum):
    """What a sampling rule says of the processes measured so far."""

    ENOUGH = "enough"
    MORE = "more"


class Decide(Protocol):
    """A sampling rule: a pure function of the whole run, called after each process."""

    def __call__(self, run: Run, /) -> Answer: ...


class EndSampling(Protocol):
    """A rule that ends the samples of a process: a pure function, called after each sample.

    Returns why sampling ends, or None for one more sample.
    """

    def __call__(
        self, case: Case, platform: Platform, samples: Sequence[Sample], /
    ) -> SamplingEnd | None: ...


def fixed_samples(_case: Case, platform: Platform, samples: Sequence[Sample], /) -> SamplingEnd | None:
    """The rule that takes as many samples as the platform asks for."""
    return SamplingEnd.FIXED if len(samples) >= platform.samples else None


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingRules:
    """How many processes measure a case, and how often each generates."""

    decide: Decide
    max_processes: int
    end_sampling: EndSampling = fixed_samples
    """Ends the samples of a process without an fp32 twin; with one their number is fixed."""
    warmups: int = 1
    """Generations before the first sample, at least."""


class Series:
    """The processes of one case as they are measured, until the rule says that they suffice."""

    def __init__(self, start: Run, decide: Decide, max_processes: int) -> None:
        """Continue `start`, whose processes (of an interrupted session) count towards `max_processes`."""
        self.run = start
        self._decide = decide
        self._max_processes = max_processes
        # Unknown for processes of an earlier session: the rule may need a reference that is not measured yet.
        self._is_over: bool | None = None if start.processes else False

    @property
    def is_over(self) -> bool:
        """Whether no further process is wanted."""
        if self._is_over is None:
            self._is_over = self._decide(self.run) is Answer.ENOUGH
        return self._is_over or len(self.run.processes) >= self._max_processes

    @property
    def index(self) -> int:
        """The index of the next process in the run, from 0."""
        return len(self.run.processes)

    def took(self, process: Process) -> None:
        """Add a measured process, then ask the rule; if the rule raises, the process is kept."""
        self.run = msgspec.structs.replace(self.run, processes=(*self.run.processes, process))
        answer = self._decide(self.run)
        self.run = _with_look(self.run, answer)
        self._is_over = answer is Answer.ENOUGH

    def failed(self, failure: Failure, partial: Process | None) -> None:
        """End the series with the failure of a process, and keep what that process measured, if anything."""
        self._is_over = True
        self.run = msgspec.structs.replace(
            self.run,
            processes=self.run.processes if partial is None else (*self.run.processes, partial),
            failure=failure,
            status=status_of(failure),
            reason=failure.message,
        )

    def refused(self, reason: str) -> None:
        """End the series before its first process: `reason` says why it is not run."""
        self._is_over = True
        self.run = msgspec.structs.replace(self.run, status=Status.NOT_RUN, reason=reason)


def _with_look(run: Run, answer: Answer) -> Run:
    count = len(run.processes)
    look = f"{count} {'process' if count == 1 else 'processes'}: {answer}"
    return msgspec.structs.replace(run, looks=(*run.looks, look))
