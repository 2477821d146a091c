"""What a session that resumes another keeps of it: only what was measured on the same stack, and said so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from perf_tests.harness.execution.launcher import Launcher, Seen, Stack
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.runs.record import Progress, Run, RunRecord
from perf_tests.protocol.errors import UsageError, WorkerError
from perf_tests.protocol.reports import Environment

STEM = "resume"
"""How the name of a log begins where the worker only says which stack it has."""


def check_stack(resumed: RunRecord, selected: Sequence[Planned], stack: Stack, out: Path) -> None:
    """Start a worker of `stack`, even if nothing is left to measure, and compare it with the record.

    Raises UsageError where it has another stack than the one that was measured, or does not start.
    """
    measured = {run.id for run in resumed.cases if run.processes}
    kept = [planned for planned in selected if planned.case.id in measured]
    if not kept or resumed.environment is None:
        return
    try:
        reported(Launcher(out, stack, seen=Seen(resumed.environment)), kept[0], STEM)
    except WorkerError as error:
        raise UsageError(
            f"--perf-resume: {out} cannot be continued here: {error}; use the interpreter that it was begun "
            "with, or start anew without --perf-resume"
        ) from error


def reported(launcher: Launcher, planned: Planned, stem: str) -> Environment:
    """What a worker says of its stack. It builds nothing, and is gone afterwards; `stem` names its log.

    Raises WorkerError where it does not start, or has another stack than the launcher has seen.
    """
    try:
        return launcher.start(planned, stem, 0).environment
    finally:
        launcher.kill_all()


def kept_cases(opened: RunRecord, selected: Collection[str]) -> tuple[Run, ...]:
    """The selected cases that are measured already in the record of a session which has just begun."""
    return tuple(
        run
        for run in opened.cases
        if run.id in selected and run.progress not in (Progress.PLANNED, Progress.INTERRUPTED)
    )


def sentence(kept: Sequence[Run], selected: int, began: str) -> str:
    """Which of the `selected` cases were not measured again, and where they were measured; `began` is when
    the session began that measured them."""
    units = sorted({process.environment.unit for run in kept for process in run.processes})
    on = f" on {', '.join(units)}" if units else ""
    were = "was" if len(kept) == 1 else "were"
    return (
        f"--perf-resume: {len(kept)} of {selected} cases {were} not measured again, but kept from the "
        f"session of {began}{on}: {', '.join(run.id for run in kept)}"
    )
