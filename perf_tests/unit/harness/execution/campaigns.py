"""Campaigns on fake workers, for tests."""

from __future__ import annotations

from perf_tests.harness.execution.sampling import Answer, Decide
from perf_tests.harness.runs.record import Run


def fixed_processes(count: int) -> Decide:
    """A rule that always asks for `count` processes."""

    def decide(run: Run, /) -> Answer:
        return Answer.ENOUGH if len(run.processes) >= count else Answer.MORE

    return decide
