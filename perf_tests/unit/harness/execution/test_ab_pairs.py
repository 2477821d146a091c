from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.execution import ab_pairs
from perf_tests.harness.execution.ab_pairs import (
    GENERATIONS,
    MAX_PAIRS,
    MIN_PAIRS,
    PairCampaign,
    PairRunner,
    SideError,
    builds_together,
    order,
    process_order,
    schedule_of,
)
from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.launcher import Launcher, Stack
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.execution.sampling import SamplingRules
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.record import Comparison, Pair, Schedule, Side, Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.harness.runs.store import SessionStart
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import FailureKind, Fault, Generate, Injection, Load, Phase, Request
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    GPU,
    make_build,
    make_environment,
    make_failure,
    make_memory,
    make_process,
    make_record,
    make_run,
    make_verdict,
)
from perf_tests.unit.conftest import CASES, FAKE_WORKER, FP8DQROW, LOADED, Misbehave
from perf_tests.unit.harness.execution.campaigns import fixed_processes

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

    monkeypatch.setattr(ab_pairs, "wait", interrupted)
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
    kept = ab_pairs._without_shared_metrics(process).build.values
    assert not kept.keys() & {*values, "peak_device_mib"}
    assert kept["weight_bytes"] == 64.0


# A campaign


class Scripted(PairRunner):
    """Returns or raises what it was given, pair after pair."""

    def __init__(self, *results: Pair | BaseException) -> None:
        super().__init__({}, Path())
        self._results = iter(results)
        self.schedules: list[Schedule] = []
        self.together: list[bool] = []

    def environment(self, side: Side) -> None:
        return None

    def measure(self, planned: Planned, index: int, schedule: Schedule, *, together: bool = False) -> Pair:
        self.schedules.append(schedule)
        self.together.append(together)
        result = next(self._results)
        if isinstance(result, BaseException):
            raise result
        return result


Open = Callable[..., Campaign]


@pytest.fixture
def open_campaign(tmp_path: Path) -> Iterator[Open]:
    """A campaign that has measured its only case, on a card of 79.6 GiB."""
    opened = []

    def start(*injections: Injection, comparisons: tuple[Comparison, ...] = ()) -> Campaign:
        measured = make_run(CASE, H100, processes=(make_process(environment=ENVIRONMENT),))
        measured = msgspec.structs.replace(measured, injected=tuple("latency:+1%" for _ in injections))
        campaign = Campaign(
            (Planned(CASE, H100, injections),),
            tmp_path,
            Stack(python=sys.executable),
            SamplingRules(decide=fixed_processes(1), max_processes=1),
            SessionStart(
                started_at="2026-01-02T03:04:05+00:00",
                command_line="pytest",
                resumed=make_record(measured, references=(), comparisons=comparisons),
            ),
        )
        opened.append(campaign)
        return campaign

    yield start
    for campaign in opened:
        campaign.close()


def never(case_id: str) -> None:
    return None


def enough(count: int) -> Callable[[Comparison], Comparison | None]:
    """A judge for whom `count` pairs are enough, or a failure."""

    def judge(comparison: Comparison) -> Comparison | None:
        if len(comparison.pairs) < count and comparison.failure is None:
            return None
        return msgspec.structs.replace(comparison, status=Status.PASS, reason="")

    return judge


def test_pairs_are_measured_until_the_judge_has_enough(open_campaign: Open, tmp_path: Path) -> None:
    campaign = open_campaign(SLOWER)
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, 14000.0)
    runner = Scripted(*[PAIR] * MAX_PAIRS)
    comparison = pairs.compare(start, runner, enough(MIN_PAIRS), never)

    assert runner.schedules == [Schedule.RESIDENT] * 5
    assert runner.together == [True] * 5
    assert comparison is campaign.store.comparisons[FP8DQROW]
    (written,) = read_record(tmp_path).comparisons
    assert written == comparison
    assert (len(written.pairs), written.against, written.injected) == (5, AGAINST, ("latency:+1%",))
    assert (written.schedule, written.digest) == (Schedule.RESIDENT, CASE.digest)


def test_a_side_that_fails_ends_the_comparison(open_campaign: Open) -> None:
    campaign = open_campaign()
    died = SideError(A, make_failure(kind=FailureKind.CRASH, message="worker was killed by SIGSEGV"))
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, None)
    comparison = pairs.compare(start, Scripted(PAIR, died), enough(5), never)

    assert (comparison.failed_side, len(comparison.pairs)) == (A, 1)
    assert comparison.failure is not None
    assert comparison.failure.kind is FailureKind.CRASH


def test_workers_that_do_not_fit_after_all_are_measured_by_process(open_campaign: Open) -> None:
    campaign = open_campaign()
    full = SideError(B, make_failure(message="out of memory at 79 GiB"))
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, 14000.0)
    runner = Scripted(full, *[PAIR] * 5)
    comparison = pairs.compare(start, runner, enough(5), never)

    assert runner.schedules == [Schedule.RESIDENT, *[Schedule.BY_PROCESS] * 5]
    assert comparison.schedule is Schedule.BY_PROCESS
    assert comparison.schedule_reason == (
        "out of memory with both resident (candidate): out of memory at 79 GiB"
    )
    assert comparison.failure is None


def test_ctrl_c_keeps_the_pairs_that_were_measured(open_campaign: Open, tmp_path: Path) -> None:
    campaign = open_campaign()
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, 14000.0)
    with pytest.raises(KeyboardInterrupt):
        pairs.compare(start, Scripted(PAIR, PAIR, KeyboardInterrupt()), enough(5), never)
    campaign.interrupt()

    (written,) = read_record(tmp_path).comparisons
    assert (len(written.pairs), written.status) == (2, Status.INCONCLUSIVE)
    assert written.reason == "after 2 pairs: interrupted"


def test_a_comparison_that_is_refused_says_why(open_campaign: Open) -> None:
    campaign = open_campaign()
    refusals = iter([None, "the budget of 60 s is spent"])
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, None)
    comparison = pairs.compare(start, Scripted(PAIR), enough(5), lambda case_id: next(refusals))

    assert (comparison.status, len(comparison.pairs)) == (Status.INCONCLUSIVE, 1)
    assert comparison.reason == "after 1 pair: the budget of 60 s is spent"


def settled(start: Comparison) -> Comparison:
    passed = make_verdict("denoise_step_ms", Status.PASS)
    return msgspec.structs.replace(start, pairs=(PAIR,) * 5, status=Status.PASS, verdicts=(passed,))


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        pytest.param({}, 0, id="of the same"),
        pytest.param({"against": "/other/python"}, 5, id="with another stack"),
        pytest.param({"digest": "0" * 64}, 5, id="of another case"),
        pytest.param({"injected": ("latency:+3%",)}, 5, id="of a fire drill"),
        pytest.param({"verdicts": ()}, 5, id="that was not finished"),
    ],
)
def test_a_comparison_is_resumed_only_if_it_is_finished_and_unchanged(
    open_campaign: Open, changes: dict[str, Any], measured: int
) -> None:
    campaign = open_campaign()
    before = settled(PairCampaign(campaign).begin(FP8DQROW, AGAINST, None))
    campaign = open_campaign(comparisons=(msgspec.structs.replace(before, **changes),))
    runner = Scripted(*[PAIR] * 5)
    pairs = PairCampaign(campaign)
    start = pairs.begin(FP8DQROW, AGAINST, None)
    pairs.compare(start, runner, enough(5), never)
    assert len(runner.schedules) == measured


def test_a_record_without_comparisons_is_read(tmp_path: Path) -> None:
    old = msgspec.to_builtins(make_record(make_run()))
    del old["comparisons"]
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(old))
    assert read_record(tmp_path).comparisons == ()


def test_sides_on_different_devices_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = msgspec.structs.replace(ENVIRONMENT, gpu=msgspec.structs.replace(GPU, uuid="GPU-2"))
    processes = {A: make_process(environment=other), B: make_process(environment=ENVIRONMENT)}
    monkeypatch.setattr(PairRunner, "_by_process", lambda *_: processes)
    with pytest.raises(SideError, match=f"the stable stack computes on GPU-2, the candidate on {GPU.uuid}"):
        make_runner(tmp_path).measure(Planned(CASE, QUICK), 0, Schedule.BY_PROCESS)
