"""How many processes a case takes: a loop that asks an injected rule after each of them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec

from perf_tests.harness.errors import WorkerError
from perf_tests.harness.protocol import Failure
from perf_tests.harness.records import STATUS_OF_FAILURE, Process, Run

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


class ProcessError(WorkerError):
    """A process that failed, with what was measured until then."""

    def __init__(self, failure: Failure, partial: Process | None) -> None:
        super().__init__(failure)
        self.partial = partial


def fixed_processes(count: int) -> Decide:
    """The rule that asks for `count` processes, whatever they show."""

    def decide(run: Run, /) -> Answer:
        return Answer.ENOUGH if len(run.processes) >= count else Answer.MORE

    return decide


def measure(
    run_once: Callable[[int], Process],
    start: Run,
    decide: Decide,
    max_processes: int,
    observe: Callable[[Run], None] = lambda run: None,
) -> Run:
    """`start` with the processes that `decide` asked for, at most `max_processes` started.

    `run_once` gets the place of the process in the run, from 0. Its ProcessError ends the run with the
    failure's status; any other exception passes, and `observe` has seen every finished process.
    """
    run = start
    for _ in range(max_processes):
        try:
            process = run_once(len(run.processes))
        except ProcessError as error:
            return _failed(run, error)
        run = msgspec.structs.replace(run, processes=(*run.processes, process))
        observe(run)
        answer = decide(run)
        run = _looked(run, answer)
        if answer is Answer.ENOUGH:
            break
    return run


def _looked(run: Run, answer: Answer) -> Run:
    count = len(run.processes)
    look = f"{count} {'process' if count == 1 else 'processes'}: {answer}"
    kept = run.processes[:-1] if answer is Answer.RETAKE else run.processes
    return msgspec.structs.replace(run, processes=kept, looks=(*run.looks, look))


def _failed(run: Run, error: ProcessError) -> Run:
    partial = () if error.partial is None else (error.partial,)
    return msgspec.structs.replace(
        run,
        processes=(*run.processes, *partial),
        failure=error.failure,
        status=STATUS_OF_FAILURE[error.failure.kind],
        reason=error.failure.message,
    )
