"""A worker that was forked or imported ahead is as any other."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perf_tests.harness.execution.launcher import Launcher, Stack
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.processes.fork_server import FORKING
from perf_tests.protocol.messages import (
    Compile,
    Compiled,
    Fork,
    Generate,
    Generated,
    Load,
    Loaded,
    Phase,
    Quantize,
    Quantized,
)
from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import CPU_REGULAR_ROWS
from perf_tests.tables.platforms import CPU, Device, WorkerStart
from perf_tests.worker import fork_server
from perf_tests.worker.fork_server import OF_EVERY_WORKER
from perf_tests.worker.model.lazy import resolve

CASES = {case.id: case for case in (row.case(Weights.SYNTHETIC) for row in CPU_REGULAR_ROWS)}
INT8WO = CASES["flux-mini-b1-int8wo-eager"]
AHEAD = dataclasses.replace(CPU, worker_start=WorkerStart.AHEAD)


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Forks real workers, which end with the test."""
    launcher = Launcher(tmp_path, Stack(python=sys.executable, forking=FORKING))
    yield launcher
    launcher.kill_all()


def test_what_the_server_imports_exists() -> None:
    """It ignores what it cannot import, so that a name written wrong would only cost time."""
    targets = {target for case in CASES.values() for target in case.build.targets}
    assert "diffusers:CogVideoXPipeline" in targets
    assert "torch._inductor.compile_fx:compile_fx" in targets
    for target in (*OF_EVERY_WORKER, *targets):
        assert resolve(target) is not None


def test_a_forked_worker_and_a_spare_generate_what_another_does(launcher: Launcher) -> None:
    """With two threads, and twice from one server, which has computed nothing."""
    forking, ahead = Planned(INT8WO, CPU), Planned(INT8WO, AHEAD)
    workers = []
    try:
        for index, planned in enumerate((ahead, ahead, forking, forking)):
            workers.append(launcher.start(planned, INT8WO.id, index))
        first, spare, *forked = workers
        assert [each.environment for each in workers] == [first.environment] * 4
        assert first.environment.settings["threads"] == str(len(os.sched_getaffinity(0)))
        hashes = []
        for worker in workers:
            worker.ask(Load(case=INT8WO, device=Device.CPU), Loaded, 60)
            worker.ask(Quantize(), Quantized, 60)
            worker.ask(Compile(), Compiled, 60)
            hashes.append(worker.ask(Generate(), Generated, 60).sample.output_sha256)
        assert hashes == hashes[:1] * 4
        assert forked[0].seconds[Phase.IMPORT] > forked[1].seconds[Phase.IMPORT]
        command = Path(f"/proc/{spare.pid}/cmdline").read_bytes().split(b"\0")
        assert command[2:4] == [b"perf_tests.worker.fork_server", b"--socket-fd"]
    finally:
        launcher.kill_all()


def test_inductor_tries_the_instructions_of_the_processor_before_workers_are_forked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of them would try for itself; that torch keeps what it found is its own affair."""
    from torch._inductor import compile_fx, cpu_vec_isa

    asked: list[str] = []
    assert cpu_vec_isa.valid_vec_isa_list.cache_info() is not None
    monkeypatch.setattr(cpu_vec_isa, "valid_vec_isa_list", lambda: asked.append("the processor"))
    monkeypatch.setattr(fork_server, "prepare", lambda _: None)
    order = Fork(variables={})
    fork_server.prepare_to_fork(order)
    assert asked == ["the processor"]

    monkeypatch.delitem(sys.modules, compile_fx.__name__)
    fork_server.prepare_to_fork(order)
    assert asked == ["the processor"]
