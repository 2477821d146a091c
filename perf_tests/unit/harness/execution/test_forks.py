"""Workers from a process that has imported the stack, and what happens where that fails."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.execution import forks, resuming
from perf_tests.harness.execution.launcher import Stack
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.processes import fork_server, worker_process
from perf_tests.harness.processes.spare import Spare
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.record import Status
from perf_tests.protocol.messages import Fork, Generate
from perf_tests.tables.platforms import Platform
from perf_tests.unit.conftest import FAKE_WORKER, Misbehave
from perf_tests.unit.forked_workers import FORKING, START_LISTENING, START_PROCESS, FakeWorkers
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

pytestmark = pytest.mark.usefixtures("fake_workers_server", "forked_servers")

FLUX_DEV, FLUX_INT8, FLUX_FP8 = (
    "flux1-dev-b1-bf16-eager",
    "flux1-dev-b1-int8wo-eager",
    "flux1-dev-b1-fp8wo-eager",
)


@pytest.fixture
def forked_servers(monkeypatch: pytest.MonkeyPatch, forked_workers: FakeWorkers) -> None:
    """Servers and spares are themselves forked, but for the tests that put back what starts interpreters."""
    monkeypatch.setattr(fork_server, "ADOPTING", threading.RLock())  # held while a server is started
    monkeypatch.setattr(fork_server, "start_listening", forked_workers.start_listening)


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


def test_a_forked_worker_reports_what_any_other_does(conduct: Conduct, tmp_path: Path) -> None:
    (forked,) = conduct(COMPILED, forking=FORKING, out=tmp_path / "forked").run(COMPILED).processes
    (other,) = conduct(COMPILED, out=tmp_path / "other").run(COMPILED).processes
    assert forked.environment == other.environment
    assert forked.build.cache == other.build.cache  # each has caches of its own
    assert forked.log == other.log == f"logs/{COMPILED}.0.log"


def test_variables_of_single_workers_are_none_of_the_server() -> None:
    assert {"HF_TOKEN", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"} == forks.OF_SINGLE_WORKERS


@pytest.mark.parametrize(
    ("case_id", "platform"), [(BF16, CPU_ALONE), ("flux1-dev-b1-bf16-eager", GPU)], ids=["server", "spare"]
)
def test_what_imports_has_caches_in_the_run_directory(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case_id: str, platform: Platform
) -> None:
    """torch keeps some of these paths from when it was imported."""
    monkeypatch.setattr(fork_server, "start_listening", START_LISTENING)  # with an environment of its own
    before = living_children()
    campaign = conduct(case_id, platform=platform, forking=FORKING)
    campaign.run(case_id)
    (importing,) = living_children() - before
    variables = (Path("/proc") / importing / "environ").read_bytes().decode().split("\0")
    assert f"TORCHINDUCTOR_CACHE_DIR={tmp_path}/cache/importing/inductor" in variables
    assert f"TRITON_CACHE_DIR={tmp_path}/cache/importing/triton" in variables


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
    hasty = dataclasses.replace(CPU_ALONE.timeouts, import_s=4.0)
    platform = dataclasses.replace(CPU_ALONE, timeouts=hasty)
    campaign = conduct(BF16, INT8WO, platform=platform, forking=(*FORKING, "--hangs-after", "0"))
    assert [campaign.run(case_id).failure for case_id in (BF16, INT8WO)] == [None, None]
    assert started == [BF16, INT8WO]


@pytest.mark.parametrize(
    ("case_ids", "platform"), [((BF16,), CPU_ALONE), ((FLUX_DEV, FLUX_INT8), GPU)], ids=["server", "spare"]
)
def test_a_variable_that_is_not_utf8_costs_no_case(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, case_ids: tuple[str, ...], platform: Platform
) -> None:
    """An order for a worker cannot hold it."""
    monkeypatch.setattr(worker_process, "start_process", START_PROCESS)  # not forked, by whatever name
    monkeypatch.setattr(fork_server, "start_listening", START_LISTENING)
    monkeypatch.setenv("HF_HOME", os.fsdecode(b"/weights/\xff"))
    campaign = conduct(*case_ids, platform=platform, forking=FORKING)
    assert [campaign.run(case_id).failure for case_id in case_ids] == [None] * len(case_ids)


def test_a_server_that_cannot_be_started_costs_no_case(conduct: Conduct, started: list[str]) -> None:
    campaign = conduct(BF16, INT8WO, forking=("-m", "no_such_module"))
    assert [campaign.run(case_id).failure for case_id in (BF16, INT8WO)] == [None, None]
    assert started == [BF16, INT8WO]


def test_a_worker_that_another_process_adopts_leaves_its_pipes_to_the_next(
    conduct: Conduct, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise both would read the requests."""
    monkeypatch.setattr(fork_server, "start_listening", START_LISTENING)
    adopt = fork_server._adopt_orphans  # what starts the other worker is itself forked in these tests
    monkeypatch.setattr(fork_server, "_adopt_orphans", lambda is_on: adopt(is_on) if started else None)
    campaign = conduct(BF16, INT8WO, forking=FORKING)
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
    campaign.abort()
    campaign.close()
    assert living_children() <= before
    assert [run.id for run in campaign.record.cases if run.processes] == [BF16]


def test_ctrl_c_while_a_worker_is_forked_ends_the_server(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_answer: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fork_server, "start_listening", START_LISTENING)
    monkeypatch.setattr(fork_server, "_child", interrupted)
    campaign = conduct(BF16, forking=FORKING)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(BF16)
    campaign.abort()
    campaign.close()
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


# A spare: the next worker of a GPU

ON_GPU = (FLUX_DEV, FLUX_INT8, FLUX_FP8)


def pids_of_workers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process id of each worker, in the order of starting."""
    pids = []
    greet = Worker.greet

    def noted(worker: Worker, timeout_s: float) -> None:
        pids.append(worker.pid)
        greet(worker, timeout_s)

    monkeypatch.setattr(Worker, "greet", noted)
    return pids


def test_the_next_worker_of_a_gpu_imports_ahead_and_is_forked_from_nothing(
    conduct: Conduct, started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pids = pids_of_workers(monkeypatch)
    campaign = conduct(*ON_GPU, platform=GPU, forking=FORKING)
    runs = [campaign.run(case_id) for case_id in ON_GPU]
    assert [run.failure for run in runs] == [None] * 3
    assert started == [FLUX_DEV]
    assert len(set(pids)) == 3
    assert [run.processes[0].log for run in runs] == [f"logs/{case_id}.0.log" for case_id in ON_GPU]
    assert runs[0].processes[0].environment == runs[1].processes[0].environment
    assert not (tmp_path / "logs" / "fork-server.log").exists()


def test_a_spare_does_not_run_while_another_worker_is_timed(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = living_children()
    ask = Worker.ask
    seen: dict[str, list[bool]] = {}

    def looked(worker: Worker, request: Any, *others: Any) -> Any:
        (spare,) = living_children() - before - {str(worker.pid)}
        timed = isinstance(request, Generate) and not request.warmup
        wait_until(lambda: is_stopped(spare) is timed)
        seen.setdefault(type(request).__name__, []).append(is_stopped(spare))
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", looked)
    campaign = conduct(FLUX_DEV, platform=GPU, forking=FORKING)
    assert campaign.run(FLUX_DEV).failure is None
    assert seen == {
        "Load": [False],
        "Quantize": [False],
        "Compile": [False],
        "Generate": [False, True],  # the warm-up, the sample
        "Inspect": [False],
    }


def is_stopped(pid: str) -> bool:
    """Whether the process was stopped by a signal."""
    return (Path("/proc") / pid / "stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_until(is_true: Callable[[], bool]) -> None:
    """A signal takes effect soon, and not at once."""
    deadline = time.monotonic() + 10
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.parametrize("switch", ["--dies-after=0", "--dies-after=1"], ids=["importing", "in its turn"])
def test_a_spare_that_dies_costs_no_case(conduct: Conduct, started: list[str], switch: str) -> None:
    campaign = conduct(*ON_GPU, platform=GPU, forking=(*FORKING, switch))
    assert [campaign.run(case_id).failure for case_id in ON_GPU] == [None] * 3
    assert started == list(ON_GPU)


def test_a_spare_that_hangs_costs_no_case(conduct: Conduct, started: list[str]) -> None:
    hasty = dataclasses.replace(GPU.timeouts, import_s=4.0)
    platform = dataclasses.replace(GPU, timeouts=hasty)
    campaign = conduct(*ON_GPU, platform=platform, forking=(*FORKING, "--hangs-after=0"))
    assert [campaign.run(case_id).failure for case_id in ON_GPU] == [None] * 3
    assert started == list(ON_GPU)


def test_a_worker_that_dies_costs_the_spare_nothing(
    conduct: Conduct, started: list[str], misbehave: Misbehave
) -> None:
    misbehave(f"killed@{FLUX_INT8}")
    campaign = conduct(*ON_GPU, platform=GPU, forking=FORKING)
    statuses = [campaign.run(case_id).status for case_id in ON_GPU]
    assert statuses == [Status.INCONCLUSIVE, Status.CRASH, Status.INCONCLUSIVE]
    assert started == [FLUX_DEV]


def test_a_spare_ends_with_the_campaign(conduct: Conduct) -> None:
    before = living_children()
    campaign = conduct(FLUX_DEV, platform=GPU, forking=FORKING)
    campaign.run(FLUX_DEV)
    assert len(living_children() - before) == 1
    campaign.close()
    assert living_children() <= before


def test_ctrl_c_leaves_no_spare(conduct: Conduct, monkeypatch: pytest.MonkeyPatch) -> None:
    before = living_children()
    campaign = conduct(FLUX_DEV, platform=GPU, forking=FORKING)
    interrupt_at(monkeypatch, Generate, 2)  # the sample, while the spare is stopped
    with pytest.raises(KeyboardInterrupt):
        campaign.run(FLUX_DEV)
    campaign.abort()
    campaign.close()
    assert living_children() <= before


def test_nothing_is_imported_beside_other_launchers_of_a_card(conduct: Conduct) -> None:
    before = living_children()
    campaign = conduct(FLUX_DEV, platform=GPU, forking=FORKING)
    campaign.run(FLUX_DEV)
    campaign.on_device(None, lambda lane: lane.launcher(Stack(python=sys.executable)))
    assert living_children() <= before


def test_imports_ahead_are_told_the_compute_capability(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would otherwise make a CUDA context, on the card that another worker is timed on, to find out."""
    told = []
    send, take = Spare.__init__, Spare.take

    def begun(self: Spare, *arguments: Any) -> None:
        told.append(arguments[-1].capability)
        send(self, *arguments)

    def taken(self: Spare, order: Fork, **pipes: Any) -> Any:
        told.append(order.capability)
        return take(self, order, **pipes)

    monkeypatch.setattr(Spare, "__init__", begun)
    monkeypatch.setattr(Spare, "take", taken)
    campaign = conduct(FLUX_DEV, FLUX_INT8, platform=GPU, forking=FORKING)
    for case_id in (FLUX_DEV, FLUX_INT8):
        campaign.run(case_id)
    assert told == [(9, 0)] * 3


# What the session is told


@pytest.mark.parametrize(
    ("case_ids", "platform", "switch", "why"),
    [
        (
            (BF16, INT8WO),
            CPU_ALONE,
            ("--dies-after", "1"),
            "no worker was forked: the server has ended: it says why",
        ),
        (ON_GPU, GPU, ("--dies-after", "0"), "the spare worker has ended: it says why"),
    ],
    ids=["server", "spare"],
)
def test_that_workers_import_when_they_are_wanted_has_a_reason(
    conduct: Conduct, case_ids: tuple[str, ...], platform: Platform, switch: tuple[str, ...], why: str
) -> None:
    campaign = conduct(*case_ids, platform=platform, forking=(*FORKING, *switch))
    assert campaign.asides.late_imports == {}
    for case_id in case_ids:
        campaign.run(case_id)
    assert campaign.asides.late_imports == {None: why}


def test_workers_that_import_ahead_are_nothing_to_tell(conduct: Conduct) -> None:
    campaign = conduct(*ON_GPU, platform=GPU, forking=FORKING)
    for case_id in ON_GPU:
        campaign.run(case_id)
    assert campaign.asides.late_imports == {}
