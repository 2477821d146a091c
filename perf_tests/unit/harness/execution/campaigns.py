"""Campaigns on fake workers, for the tests of this package."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Protocol

import pytest

from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.sampling import Answer, Decide
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.record import Run, Status, Verdict
from perf_tests.protocol.messages import (
    Injection,
    Request,
)
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import CPU_ROWS, GPU_ROWS
from perf_tests.tables.platforms import CPU, H100, Platform

CPU_FAST = dataclasses.replace(CPU, samples=2)
CPU_ALONE = dataclasses.replace(CPU_FAST, interleave_twin=False)
CPU_HASTY = dataclasses.replace(CPU_ALONE, timeouts=dataclasses.replace(CPU.timeouts, generate_s=3.0))
GPU = dataclasses.replace(H100, samples=1)

BF16, INT8WO, COMPILED, COGVIDEOX = (
    "flux-mini-b1-bf16-eager",
    "flux-mini-b1-int8wo-eager",
    "flux-mini-b1-bf16-regional",
    "cogvideox-mini-b1-bf16-eager",
)
TWIN = "flux-mini-b1-fp32-eager"
AUTOQUANT = "flux-mini-b1-autoquant-eager"
CASES: dict[str, Case] = {
    case.id: case for case in (row.case(Weights.SYNTHETIC) for row in (*CPU_ROWS, *GPU_ROWS))
}
INT8WO_4, INT8WO_8, BF16_4 = (
    "flux-mini-b4-int8wo-eager",
    "flux-mini-b8-int8wo-eager",
    "flux-mini-b4-bf16-eager",
)


def larger(case_id: str, **changes: Any) -> Case:
    """A case of the matrix with another workload."""
    case = CASES[case_id]
    return dataclasses.replace(case, workload=dataclasses.replace(case.workload, **changes))


CASES |= {
    case.id: case
    for case in (
        larger(INT8WO, batch_size=4),
        larger(INT8WO, batch_size=8),
        larger(BF16, batch_size=4),
    )
}
CREATED_AT = "2026-01-02T03:04:05+00:00"


def fixed_processes(count: int) -> Decide:
    """A rule that always asks for `count` processes."""

    def decide(run: Run, /) -> Answer:
        return Answer.ENOUGH if len(run.processes) >= count else Answer.MORE

    return decide


class Conduct(Protocol):
    """The fixture that opens campaigns."""

    def __call__(
        self,
        *case_ids: str,
        platform: Platform = CPU_ALONE,
        injected: tuple[Injection, ...] = (),
        **settings: Any,
    ) -> Campaign:
        """A campaign over `case_ids`, with faults in the first of them.

        `settings` are arguments of Campaign, or fields of the values that it takes.
        """


def living_workers() -> list[str]:
    """Process ids of the fake workers that this process started."""
    return [folder.name for folder in Path("/proc").iterdir() if folder.name.isdigit() and is_mine(folder)]


def is_mine(folder: Path) -> bool:
    """Whether the process of that /proc folder is a living worker of this process."""
    try:
        state, parent, _, session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False  # it ended meanwhile
    return parent == str(os.getpid()) and state != "Z" and session == folder.name


def verdict(metric: str, reason: str) -> Verdict:
    """A verdict that passes."""
    return Verdict(
        metric=metric,
        status=Status.PASS,
        measured=1.0,
        baseline=1.0,
        change_pct=0.0,
        ci_pct=None,
        limit=2.0,
        reason=reason,
    )


def interrupt_at(monkeypatch: pytest.MonkeyPatch, request_type: type[Request], count: int) -> None:
    """Ctrl-C when a worker is asked the `count`-th request of a type."""
    ask, asked = Worker.ask, []

    def interrupted(worker: Worker, request: Request, *others: Any) -> Any:
        asked.append(type(request))
        if asked[-1] is request_type and asked.count(request_type) == count:
            raise KeyboardInterrupt
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", interrupted)
