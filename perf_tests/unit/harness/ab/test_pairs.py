from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.ab import pairs
from perf_tests.harness.ab.pairs import GENERATIONS, PairRunner, SideError
from perf_tests.harness.ab.schedule import builds_together, order, process_order, schedule_of
from perf_tests.harness.execution.launcher import Launcher, Stack
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.record import Pair, Schedule, Side
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind, Fault, Generate, Injection, Load, Phase, Request
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    GPU,
    make_build,
    make_environment,
    make_memory,
    make_process,
    make_run,
)
from perf_tests.unit.conftest import CASES, FAKE_WORKER, FP8DQROW, LOADED, Misbehave

A, B = Side.STABLE, Side.CANDIDATE
QUICK = dataclasses.replace(H100, samples=1)
SLOWER = Injection(fault=Fault.LATENCY, amount=1.0)
CASE = CASES[FP8DQROW]
AUTOQUANT = "flux1-dev-b1-autoquant-regional-noonednn"
AGAINST = "/stable/bin/python"
ENVIRONMENT = make_environment(gpu=GPU)
PAIR = Pair(stable=make_process(environment=ENVIRONMENT), candidate=make_process(environment=ENVIRONMENT))


# The schedule


def test_generations_alternate_so_that_a_drift_favours_neither_side() -> None:
    assert order(GENERATIONS) == (A, B, B, A, A, B, B, A)
    places = {side: [at for at, each in enumerate(order(GENERATIONS)) if each is side] for side in Side}
    assert sum(places[A]) == sum(places[B])


def test_processes_alternate_over_two_pairs() -> None:
    assert [side for index in range(3) for side in process_order(index)] == [A, B, B, A, A, B]


@pytest.mark.parametrize(
    ("peak_mib", "schedule"),
    [
        # 92 % of 79.6 GiB are 74989.6 MiB: two of (74989.6 - 2048) / 2 = 36470.8 MiB fit.
        pytest.param(36470.0, Schedule.RESIDENT, id="just fits"),
        pytest.param(36471.0, Schedule.BY_PROCESS, id="just does not"),
        pytest.param(None, Schedule.BY_PROCESS, id="not known"),
    ],
)
def test_workers_are_resident_only_where_twice_the_peak_fits(
    peak_mib: float | None, schedule: Schedule
) -> None:
    assert schedule_of(peak_mib, GPU)[0] is schedule


def test_the_schedule_says_why() -> None:
    assert schedule_of(40000.0, GPU)[1] == "2 x 40000 MiB + 2048 MiB do not fit in 92 % of 81510 MiB"
    assert schedule_of(14000.0, None) == (
        Schedule.BY_PROCESS,
        "it is not known how much of a card's memory the case takes",
    )


@pytest.mark.parametrize(
    ("case", "memory", "expected"),
    [
        # As of the schedule: 36470.8 MiB fit twice.
        pytest.param(CASE, {"load": 36470.0, "quantize": 20000.0}, True, id="just fits"),
        pytest.param(CASE, {"load": 36471.0, "quantize": 20000.0}, False, id="loading does not"),
        pytest.param(CASE, {"load": 20000.0, "quantize": 36471.0}, False, id="quantizing does not"),
        pytest.param(CASE, {"load": 20000.0, "compile": 36471.0}, True, id="compiling is the schedule's"),
        pytest.param(CASE, {}, False, id="not known"),
        pytest.param(CASES[AUTOQUANT], {"load": 20000.0}, False, id="a search times kernels"),
    ],
)
def test_workers_are_built_at_once_only_where_nothing_is_timed_and_twice_the_peak_fits(
    case: Case, memory: dict[str, float], expected: bool
) -> None:
    windows = {phase: make_memory(device_mib=mib) for phase, mib in memory.items()}
    process = make_process(environment=ENVIRONMENT, build=make_build(memory=windows))
    run = make_run(case, H100, processes=(process,))
    assert builds_together(Planned(case, H100), run) is expected


def test_workers_without_a_gpu_are_not_built_at_once() -> None:
    assert not builds_together(Planned(CASE, QUICK), make_run(CASE, processes=(make_process(),)))


# Workers


@pytest.fixture
def stable_python(tmp_path: Path) -> Callable[[str], str]:
    """Makes an interpreter whose workers misbehave as told."""

    def make(switches: str) -> str:
        script = tmp_path / "python-stable"
        script.write_text(f'#!/bin/sh\nPERF_FAKE="{switches}" exec {sys.executable} "$@"\n')
        script.chmod(0o755)
        return str(script)

    return make


def make_runner(out: Path, stable: str = sys.executable) -> PairRunner:
    command = ("-m", FAKE_WORKER)
    launchers = {
        A: Launcher(out, Stack(python=stable, command=command)),
        B: Launcher(out, Stack(python=sys.executable, command=command)),
    }
    return PairRunner(launchers, out)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The worker's process id and whether it is a warm-up, for each generation that was requested."""
    ask, generations = Worker.ask, []

    def noted(worker: Worker, request: Request, *others: Any) -> Any:
        if isinstance(request, Generate):
            generations.append((worker.pid, request.warmup))
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", noted)
    return generations


def interleaving(asked: list[tuple[int, bool]]) -> str:
    """The timed generations in order: X by the first worker, Y by the other."""
    timed = [pid for pid, warmup in asked if not warmup]
    names = dict(zip(dict.fromkeys(timed), "XY", strict=True))
    return "".join(names[pid] for pid in timed)


@pytest.mark.parametrize(
    ("schedule", "expected"), [(Schedule.RESIDENT, "XYYXXYYX"), (Schedule.BY_PROCESS, "XXXXYYYY")]
)
def test_a_pair_is_measured_interleaved_and_only_the_candidate_is_slowed(
    tmp_path: Path, asked: list[tuple[int, bool]], schedule: Schedule, expected: str
) -> None:
    pair = make_runner(tmp_path).measure(Planned(CASE, QUICK, (SLOWER,)), 0, schedule)

    assert interleaving(asked) == expected
    stable_ms, candidate_ms = (
        process.samples[0].values["denoise_step_ms"][0] for process in (pair.stable, pair.candidate)
    )
    assert stable_ms == 5.0
    assert candidate_ms == pytest.approx(5.05)
    assert (len(pair.stable.samples), len(pair.candidate.samples)) == (GENERATIONS, GENERATIONS)
    assert (pair.stable.log, pair.candidate.log) == (
        f"logs/{FP8DQROW}.stable.0.log",
        f"logs/{FP8DQROW}.candidate.0.log",
    )
    # Neither finds what the other has compiled.
    caches = [process.build.cache for process in (pair.stable, pair.candidate)]
    assert [cache and cache.state for cache in caches] == ["cold", "cold"]
    assert {folder.name for folder in (tmp_path / "cache").iterdir()} == {
        f"{FP8DQROW}.stable",
        f"{FP8DQROW}.candidate",
    }
    resident = schedule is Schedule.RESIDENT
    for process in (pair.stable, pair.candidate):
        assert ("peak_device_mib" in process.build.values) is not resident
        assert (process.build.memory["load"].device_mib is None) is resident
        assert process.build.values["peak_reserved_mib"] == 400.0
        assert process.build.layers == {}


def test_a_worker_of_one_stack_alone_compares_layers_too(tmp_path: Path) -> None:
    """An error of a layer may be what a stack is asked for."""
    process = make_runner(tmp_path).alone(Planned(CASE, QUICK), B, 0)
    assert len(process.build.layers) > 0


@pytest.mark.parametrize("schedule", [Schedule.RESIDENT, Schedule.BY_PROCESS])
def test_each_side_loads_what_its_own_stack_has_saved(
    tmp_path: Path, stable_python: Callable[[str], str], schedule: Schedule
) -> None:
    runner = make_runner(tmp_path, stable_python("grown-file:1"))
    pair = runner.measure(Planned(CASES["flux1-schnell-b1-int8wo-eager-torchsave"], QUICK), 0, schedule)

    stable, candidate = (
        process.build.values["checkpoint_bytes"] for process in (pair.stable, pair.candidate)
    )
    assert stable / candidate == pytest.approx(1.01)
    assert list(tmp_path.rglob("transformer.pt")) == []


@pytest.mark.parametrize("schedule", [*Schedule])
@pytest.mark.parametrize(
    ("switches", "kind", "says"),
    [
        ("segfault", FailureKind.CRASH, "worker was killed by SIGSEGV"),
        ("refused-scheme", FailureKind.UNSUPPORTED, "this torchao has no config of that name"),
    ],
)
def test_a_dead_worker_of_the_stable_stack_is_a_failure_of_that_side(
    tmp_path: Path,
    stable_python: Callable[[str], str],
    schedule: Schedule,
    switches: str,
    kind: FailureKind,
    says: str,
) -> None:
    runner = make_runner(tmp_path, stable_python(switches))
    with pytest.raises(SideError, match=says) as caught:
        runner.measure(Planned(CASE, QUICK), 0, schedule)
    assert (caught.value.side, caught.value.failure.kind) == (A, kind)
    assert not (tmp_path / "cache" / f"{FP8DQROW}.stable").exists()


def test_a_missing_stable_interpreter_is_a_failure_of_that_side(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, "/nowhere/python")
    with pytest.raises(SideError, match="worker interpreter /nowhere/python could not start") as caught:
        runner.measure(Planned(CASE, QUICK), 0, Schedule.BY_PROCESS)
    assert caught.value.side is A


# Both resident, built at once


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Phase]]:
    """The worker's process id and the phase of each answer, in the order of the answers."""
    exchange, answered = Worker._exchange, []

    def noted(worker: Worker, message: bytes, reply_type: Any, phase: Phase, timeout_s: float) -> Any:
        reply = exchange(worker, message, reply_type, phase, timeout_s)
        answered.append((worker.pid, phase))
        return reply

    monkeypatch.setattr(Worker, "_exchange", noted)
    return answered


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> threading.Barrier:
    """Whoever asks a worker to load waits here for someone else who does; breaks after 20 s."""
    ask, barrier = Worker.ask, threading.Barrier(2, timeout=20.0)

    def met(worker: Worker, request: Request, *others: Any) -> Any:
        if isinstance(request, Load):
            barrier.wait()
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", met)
    return barrier


BUILDING = {Phase.IMPORT, Phase.LOAD, Phase.QUANTIZE}


@pytest.mark.usefixtures("loading")
def test_workers_load_at_once_when_both_are_ready_and_are_timed_one_by_one(
    tmp_path: Path, exchanges: list[tuple[int, Phase]]
) -> None:
    pair = make_runner(tmp_path).measure(Planned(CASE, QUICK, (SLOWER,)), 0, Schedule.RESIDENT, together=True)
    first, second = dict.fromkeys(pid for pid, _ in exchanges)

    assert exchanges[:2] == [(first, Phase.IMPORT), (second, Phase.IMPORT)]
    built = [phase for _, phase in exchanges].index(Phase.COMPILE)
    assert {phase for _, phase in exchanges[:built]} == BUILDING
    assert len(exchanges[:built]) == 6
    assert exchanges[built : built + 4] == [
        (first, Phase.COMPILE),
        (first, Phase.GENERATE),
        (second, Phase.COMPILE),
        (second, Phase.GENERATE),
    ]
    timed = [pid for pid, phase in exchanges[built + 4 :] if phase is Phase.GENERATE]
    assert timed == [first, second, second, first, first, second, second, first]
    medians = [each.samples[0].values["denoise_step_ms"][0] for each in (pair.stable, pair.candidate)]
    assert medians == pytest.approx([5.0, 5.05])


def test_both_workers_are_ready_before_a_built_twin_loads(
    tmp_path: Path, exchanges: list[tuple[int, Phase]]
) -> None:
    """It would look to the second as if somebody else used the GPU."""
    make_runner(tmp_path).measure(Planned(CASES[LOADED], QUICK), 0, Schedule.RESIDENT)
    phases = [phase for _, phase in exchanges]
    assert phases[:3] == [Phase.IMPORT, Phase.IMPORT, Phase.IMPORT]  # the third is that of a built twin
    assert phases.count(Phase.IMPORT) == 4


def test_workers_that_may_not_be_built_at_once_are_built_one_by_one(
    tmp_path: Path, exchanges: list[tuple[int, Phase]]
) -> None:
    make_runner(tmp_path).measure(Planned(CASE, QUICK), 0, Schedule.RESIDENT)
    first, second = dict.fromkeys(pid for pid, _ in exchanges)
    assert exchanges[2:6] == [
        (first, Phase.LOAD),
        (first, Phase.QUANTIZE),
        (second, Phase.LOAD),
        (second, Phase.QUANTIZE),
    ]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """Every worker that was spawned."""
    spawn, workers = Launcher.spawn, []

    def noted(launcher: Launcher, *arguments: Any) -> Worker:
        workers.append(spawn(launcher, *arguments))
        return workers[-1]

    monkeypatch.setattr(Launcher, "spawn", noted)
    return workers


def are_gone(workers: list[Worker]) -> list[bool]:
    return [not Path(f"/proc/{worker.pid}").exists() for worker in workers]


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[FailureKind]:
    """The kind of each failed request."""
    ask, kinds = Worker.ask, []

    def noted(worker: Worker, *arguments: Any) -> Any:
        try:
            return ask(worker, *arguments)
        except WorkerError as error:
            kinds.append(error.failure.kind)
            raise

    monkeypatch.setattr(Worker, "ask", noted)
    return kinds


PATIENT = dataclasses.replace(QUICK, timeouts=dataclasses.replace(QUICK.timeouts, load_s=10.0))
"""A hanging worker costs this much time unless it is ended."""


@pytest.mark.usefixtures("loading")
def test_a_side_that_fails_while_both_load_ends_the_other(
    tmp_path: Path,
    stable_python: Callable[[str], str],
    misbehave: Misbehave,
    started: list[Worker],
    failures: list[FailureKind],
) -> None:
    misbehave("hang:load")
    runner = make_runner(tmp_path, stable_python("exit:load"))
    for side in Side:
        (tmp_path / "cache" / f"{FP8DQROW}.{side}").mkdir(parents=True)
    with pytest.raises(SideError, match="worker exited with code 3 while loading") as caught:
        runner.measure(Planned(CASE, PATIENT), 1, Schedule.RESIDENT, together=True)

    assert caught.value.side is A
    assert failures == [FailureKind.CRASH, FailureKind.CRASH]  # no timeout: the other was killed
    assert are_gone(started) == [True, True]
    assert list((tmp_path / "cache").iterdir()) == []


def test_ctrl_c_while_both_load_ends_both(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    misbehave: Misbehave,
    started: list[Worker],
    failures: list[FailureKind],
) -> None:
    misbehave("hang:load")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pairs, "all_or_failed", interrupted)
    for side in Side:
        (tmp_path / "cache" / f"{FP8DQROW}.{side}").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        make_runner(tmp_path).measure(Planned(CASE, PATIENT), 0, Schedule.RESIDENT, together=True)

    assert failures == [FailureKind.CRASH, FailureKind.CRASH]
    assert are_gone(started) == [True, True]
    assert list((tmp_path / "cache").iterdir()) == []


def test_control_kernels_of_resident_workers_are_not_recorded() -> None:
    values = {"control_gemm_ms": 1.5, "control_attention_ms": 0.4, "control_sm_clock_mhz": 1600.0}
    process = make_process(build=make_build({**values, "peak_device_mib": 9000.0, "weight_bytes": 64.0}))
    kept = pairs._without_shared_metrics(process).build.values
    assert not kept.keys() & {*values, "peak_device_mib"}
    assert kept["weight_bytes"] == 64.0


def test_sides_on_different_devices_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = msgspec.structs.replace(ENVIRONMENT, gpu=msgspec.structs.replace(GPU, uuid="GPU-2"))
    processes = {A: make_process(environment=other), B: make_process(environment=ENVIRONMENT)}
    monkeypatch.setattr(PairRunner, "_by_process", lambda *_: processes)
    with pytest.raises(SideError, match=f"the stable stack computes on GPU-2, the candidate on {GPU.uuid}"):
        make_runner(tmp_path).measure(Planned(CASE, QUICK), 0, Schedule.BY_PROCESS)
