"""How workers are started, and which files they share."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.execution.launcher import Launcher, Stack
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.record import Status
from perf_tests.protocol.messages import (
    Compile,
    Quantize,
    Request,
)
from perf_tests.unit.conftest import FAKE_WORKER, Misbehave
from perf_tests.unit.harness.execution.campaigns import (
    AUTOQUANT,
    BF16,
    CASES,
    COMPILED,
    CPU_ALONE,
    GPU,
    INT8WO,
    Conduct,
    fixed_processes,
)


def test_a_process_has_a_log_in_the_run_directory(conduct: Conduct, tmp_path: Path) -> None:
    processes = conduct(BF16, decide=fixed_processes(2)).run(BF16).processes
    assert [process.log for process in processes] == [
        "logs/flux-mini-b1-bf16-eager.0.log",
        "logs/flux-mini-b1-bf16-eager.1.log",
    ]
    assert all((tmp_path / process.log).exists() for process in processes)


def test_a_worker_on_the_cpu_sees_no_gpu_and_uses_every_processor_it_may(conduct: Conduct) -> None:
    environment = conduct(BF16).run(BF16).processes[0].environment
    assert environment.gpu is None
    assert environment.variables["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert environment.variables["OMP_WAIT_POLICY"] == "passive"


def test_a_worker_on_a_gpu_reports_it_and_its_memory(conduct: Conduct) -> None:
    (process,) = conduct("flux1-dev-b1-bf16-eager", platform=GPU).run("flux1-dev-b1-bf16-eager").processes
    assert process.environment.unit == "GPU-00000000-fake"
    assert process.build.memory["generate"].allocated_mib == 400.0
    assert process.samples[0].telemetry is not None


# Shared files


def test_artifacts_are_keyed_by_case_stack_and_device(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask: Any = Worker.ask
    files: list[tuple[str | None, str | None]] = []

    def noted(worker: Worker, request: Request, *others: Any) -> Any:
        if isinstance(request, Compile):
            files.append((request.artifacts, request.tuned))
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", noted)
    conduct(COMPILED, artifacts=tmp_path / "caches").run(COMPILED)
    digest = CASES[COMPILED].digest[:16]
    name = f"{COMPILED}-{digest}-torch2.13.0-tritonnone-fake_processor.bin"
    assert files == [(str(tmp_path / "caches" / name), str(tmp_path / "caches" / "tuned"))]


def test_a_plan_is_shared_by_the_processes_of_a_case_on_one_stack_and_device(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask: Any = Worker.ask
    files: list[tuple[str | None, float]] = []

    def noted(worker: Worker, request: Request, reply_type: Any, timeout_s: float) -> Any:
        if isinstance(request, Quantize):
            files.append((request.plan, timeout_s))
        return ask(worker, request, reply_type, timeout_s)

    monkeypatch.setattr(Worker, "ask", noted)
    conduct(AUTOQUANT, decide=fixed_processes(2)).run(AUTOQUANT)
    digest = CASES[AUTOQUANT].digest[:16]
    name = f"{AUTOQUANT}-{digest}-torch2.13.0-tritonnone-torchao0.18.0-fake_processor.json"
    # The reference follows no plan; a search may compile, and gets the time for that on top.
    assert files == [(None, 60.0)] * 2 + [(str(tmp_path / "plans" / name), 360.0)] * 2


def test_what_is_tuned_may_compile_as_long_as_the_platform_allows(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask: Any = Worker.ask
    seconds: list[float] = []

    def noted(worker: Worker, request: Request, reply_type: Any, timeout_s: float) -> Any:
        if isinstance(request, Compile):
            seconds.append(timeout_s)
        return ask(worker, request, reply_type, timeout_s)

    monkeypatch.setattr(Worker, "ask", noted)
    timeouts = dataclasses.replace(CPU_ALONE.timeouts, compile_s=1900.0)
    autotuned = "flux-mini-b1-bf16-maxautotune-cl-cdt"
    conduct(autotuned, platform=dataclasses.replace(CPU_ALONE, timeouts=timeouts)).run(autotuned)
    assert seconds == [1900.0]


def test_plans_are_in_the_folder_of_the_stack(tmp_path: Path) -> None:
    stack = Stack(python=sys.executable, command=("-m", FAKE_WORKER), plans=tmp_path / "mine")
    launcher = Launcher(tmp_path, stack)
    with launcher.start(Planned(CASES[AUTOQUANT], CPU_ALONE), AUTOQUANT, 0) as worker:
        plan = launcher.files.plan_of(CASES[AUTOQUANT], worker)
        assert launcher.files.plan_of(CASES[INT8WO], worker) is None
    assert plan is not None
    assert plan.parent == tmp_path / "mine"


# Workers that are refused or killed


def test_the_compile_cache_of_a_killed_worker_is_not_used_again(
    conduct: Conduct, misbehave: Misbehave, tmp_path: Path
) -> None:
    misbehave("killed")
    conduct(COMPILED).run(COMPILED)
    assert not (tmp_path / "cache" / COMPILED).exists()


def test_an_interpreter_without_torch_fails_every_case_by_name(
    conduct: Conduct, misbehave: Misbehave
) -> None:
    misbehave("no-torch")
    run = conduct(BF16).run(BF16)
    assert run.status is Status.LOAD
    assert run.reason.endswith("could not start: ModuleNotFoundError: No module named 'torch'")


def test_a_stack_that_changes_during_the_run_is_refused(
    conduct: Conduct, misbehave: Misbehave, tmp_path: Path
) -> None:
    misbehave(f"new-torch:{tmp_path / 'upgraded'}")
    run = conduct(BF16, decide=fixed_processes(2), out=tmp_path / "run").run(BF16)
    assert (run.status, run.reason) == (
        Status.LOAD,
        "stack changed during the run: torch 2.13.0 -> 2.14.0",
    )
    assert len(run.processes) == 1
