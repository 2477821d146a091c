"""Workers that are forked from a process which has imported the stack, and what happens where that fails."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.execution import forks, resuming
from perf_tests.harness.execution.launcher import Stack
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.processes import fork_server, worker_process
from perf_tests.harness.runs.record import Status
from perf_tests.protocol.messages import Generate
from perf_tests.unit.conftest import FAKE_WORKER, Misbehave
from perf_tests.unit.fork_server import FORKING
from perf_tests.unit.harness.execution.campaigns import (
    BF16,
    CASES,
    COGVIDEOX,
    COMPILED,
    CPU_ALONE,
    CPU_FAST,
    GPU,
    INT8WO,
    Conduct,
    interrupt_at,
    living_workers,
)

FLUX_DEV = "flux1-dev-b1-bf16-eager"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the caches of the workers that are started as interpreters of their own from now on."""
    names = []
    start = worker_process.start_process

    def noted(*arguments: Any, environment: dict[str, str], **process: Any) -> Any:
        names.append(Path(environment["TRITON_CACHE_DIR"]).parent.name)
        return start(*arguments, environment=environment, **process)

    monkeypatch.setattr(worker_process, "start_process", noted)
    return names


def living_children() -> set[str]:
    """Process ids of the children of this process that have not ended."""
    children = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended in the meantime
            if parent == str(os.getpid()) and state != "Z":
                children.add(folder.name)
    return children


def test_workers_are_forked_where_the_platform_says_so(
    conduct: Conduct, started: list[str], tmp_path: Path
) -> None:
    campaign = conduct(BF16, INT8WO, COGVIDEOX, platform=CPU_FAST, forking=FORKING)
    runs = [campaign.run(case_id) for case_id in (BF16, INT8WO, COGVIDEOX)]
    assert [(run.failure, len(run.processes[0].samples)) for run in runs] == [(None, 2)] * 3
    assert started == []
    assert (tmp_path / "logs" / "fork-server.log").exists()


def test_a_worker_on_a_gpu_is_an_interpreter_of_its_own(
    conduct: Conduct, started: list[str], tmp_path: Path
) -> None:
    conduct(FLUX_DEV, platform=GPU, forking=FORKING).run(FLUX_DEV)
    assert started == [FLUX_DEV]
    assert not (tmp_path / "logs" / "fork-server.log").exists()


def test_a_forked_worker_reports_what_any_other_does(conduct: Conduct, tmp_path: Path) -> None:
    (forked,) = conduct(COMPILED, forking=FORKING, out=tmp_path / "forked").run(COMPILED).processes
    (other,) = conduct(COMPILED, out=tmp_path / "other").run(COMPILED).processes
    assert forked.environment == other.environment
    assert forked.build.cache == other.build.cache  # each has caches of its own
    assert forked.log == other.log == f"logs/{COMPILED}.0.log"


def test_variables_of_single_workers_are_none_of_the_server() -> None:
    assert {"HF_TOKEN", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"} == forks.OF_SINGLE_WORKERS


@pytest.mark.parametrize(
    ("switch", "status", "reason"),
    [
        ("exit", Status.CRASH, "worker exited with code 3 while generating"),
        (
            "killed",
            Status.CRASH,
            "worker was killed by SIGKILL (by the kernel's OOM killer, if memory ran out) while generating",
        ),
    ],
)
def test_the_end_of_a_forked_worker_is_told_as_that_of_any_other(
    conduct: Conduct, misbehave: Misbehave, switch: str, status: Status, reason: str
) -> None:
    misbehave(switch)
    run = conduct(BF16, forking=FORKING).run(BF16)
    assert (run.status, run.reason) == (status, reason)


def test_an_import_that_fails_in_a_forked_worker_is_told_as_in_any_other(
    conduct: Conduct, misbehave: Misbehave
) -> None:
    misbehave("no-torch")
    run = conduct(BF16, forking=FORKING).run(BF16)
    assert run.status is Status.LOAD
    assert run.reason.endswith("could not start: ModuleNotFoundError: No module named 'torch'")


def test_an_interpreter_that_does_not_exist_is_named(conduct: Conduct) -> None:
    run = conduct(BF16, forking=FORKING, python="/nowhere/python").run(BF16)
    assert run.status is Status.LOAD
    assert run.reason == ("worker interpreter /nowhere/python could not start: No such file or directory")


# The server fails


def test_a_server_that_dies_costs_no_case(conduct: Conduct, started: list[str]) -> None:
    campaign = conduct(BF16, INT8WO, COGVIDEOX, forking=(*FORKING, "--dies-after", "1"))
    runs = [campaign.run(case_id) for case_id in (BF16, INT8WO, COGVIDEOX)]
    assert [(run.failure, len(run.processes)) for run in runs] == [(None, 1)] * 3
    assert started == [INT8WO, COGVIDEOX]


def test_a_server_that_hangs_costs_no_case(conduct: Conduct, started: list[str]) -> None:
    hasty = dataclasses.replace(CPU_ALONE.timeouts, import_s=2.0)
    platform = dataclasses.replace(CPU_ALONE, timeouts=hasty)
    campaign = conduct(BF16, INT8WO, platform=platform, forking=(*FORKING, "--hangs-after", "0"))
    assert [campaign.run(case_id).failure for case_id in (BF16, INT8WO)] == [None, None]
    assert started == [BF16, INT8WO]


def test_a_server_that_cannot_be_started_costs_no_case(conduct: Conduct, started: list[str]) -> None:
    campaign = conduct(BF16, INT8WO, forking=("-m", "no_such_module"))
    assert [campaign.run(case_id).failure for case_id in (BF16, INT8WO)] == [None, None]
    assert started == [BF16, INT8WO]


# No process is left


def test_the_server_ends_with_the_campaign(conduct: Conduct) -> None:
    before = living_children()
    campaign = conduct(BF16, forking=FORKING)
    campaign.run(BF16)
    assert len(living_children() - before) == 1  # the server waits for the next case
    campaign.close()
    assert living_children() <= before


def test_ctrl_c_leaves_no_process_while_a_forked_worker_generates(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = living_children()
    campaign = conduct(BF16, INT8WO, forking=FORKING)
    campaign.run(BF16)
    interrupt_at(monkeypatch, Generate, 2)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(INT8WO)
    campaign.interrupt()
    assert living_children() <= before
    assert [run.id for run in campaign.record.cases if run.processes] == [BF16]


def test_ctrl_c_while_a_worker_is_forked_ends_the_server(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_answer: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fork_server, "_child", interrupted)
    campaign = conduct(BF16, forking=FORKING)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(BF16)
    campaign.interrupt()
    # Whoever adopted the worker that was forked: it ends, because nobody holds the other ends of its pipes.
    for pid in living_workers():
        os.waitpid(int(pid), 0)
    assert living_workers() == []


def test_the_worker_that_a_resumed_session_asks_for_its_stack_leaves_no_server(
    conduct: Conduct, tmp_path: Path
) -> None:
    before = living_children()
    campaign = conduct(BF16, forking=FORKING)
    campaign.run(BF16)
    campaign.close()
    stack = Stack(
        python=sys.executable,
        command=("-m", FAKE_WORKER),
        forking=FORKING,
    )
    resuming.check_stack(campaign.record, [Planned(CASES[BF16], CPU_ALONE)], stack, tmp_path)
    assert living_children() <= before
