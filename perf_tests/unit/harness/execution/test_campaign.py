from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.launcher import Launcher, Planned
from perf_tests.harness.execution.sampling import Answer
from perf_tests.harness.execution.worker_process import Worker
from perf_tests.harness.runs.record import Run, RunRecord, SamplingEnd, Status, Verdict, WarmUpEnd
from perf_tests.harness.runs.record_file import read_record
from perf_tests.harness.runs.validity import invalidity
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.protocol.messages import (
    Compile,
    Fault,
    Generate,
    Injection,
    Load,
    Phase,
    Quantize,
    Request,
    SwitchWorkload,
)
from perf_tests.protocol.reports import Sample
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import CPU_ROWS, GPU_ROWS
from perf_tests.tables.pipelines.spec import PROMPTS
from perf_tests.tables.platforms import CPU, H100, Platform
from perf_tests.unit.conftest import Misbehave
from perf_tests.unit.harness.execution.campaigns import fixed_processes

CPU_FAST = dataclasses.replace(CPU, samples=2)
CPU_ALONE = dataclasses.replace(CPU_FAST, interleave_twin=False)
CPU_HASTY = dataclasses.replace(CPU_ALONE, timeouts=dataclasses.replace(CPU.timeouts, generate_s=1.0))
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


class Conduct(Protocol):
    def __call__(
        self,
        *case_ids: str,
        platform: Platform = CPU_ALONE,
        injected: tuple[Injection, ...] = (),
        **other: Any,
    ) -> Campaign:
        """A campaign over `case_ids`, the first of them `injected`; `other` arguments are the campaign's."""


@pytest.fixture
def conduct(tmp_path: Path) -> Iterator[Conduct]:
    """Campaigns on fake workers, closed at the end."""
    campaigns = []

    def conduct(
        *case_ids: str,
        platform: Platform = CPU_ALONE,
        injected: tuple[Injection, ...] = (),
        **other: Any,
    ) -> Campaign:
        plan = tuple(
            Planned(CASES[case_id], platform, injected if case_id == case_ids[0] else ())
            for case_id in case_ids
        )
        arguments: dict[str, Any] = {
            "plan": plan,
            "out": tmp_path,
            "python": sys.executable,
            "command": ("-m", "perf_tests.unit.fake_worker"),
            "decide": fixed_processes(1),
            "max_processes": 5,
            "started_at": CREATED_AT,
            "command_line": "pytest -m cpu",
        }
        campaign = Campaign(**arguments | other)
        campaigns.append(campaign)
        return campaign

    yield conduct
    for campaign in campaigns:
        campaign.close()


def living_workers() -> list[str]:
    """Process ids of the fake workers that this process started."""
    return [folder.name for folder in Path("/proc").iterdir() if folder.name.isdigit() and is_mine(folder)]


def is_mine(folder: Path) -> bool:
    try:
        state, parent, _, session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False  # it ended meanwhile
    return parent == str(os.getpid()) and state != "Z" and session == folder.name


def verdict(metric: str, reason: str) -> Verdict:
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


# One case


def test_a_case_is_measured_once_however_often_it_is_asked_for(conduct: Conduct) -> None:
    looks = []

    def decide(run: Run) -> Answer:
        looks.append(run.id)
        return Answer.ENOUGH

    campaign = conduct(BF16, decide=decide)
    assert campaign.run(BF16) is campaign.run(BF16)
    assert looks == [BF16]


def test_a_measured_case_waits_for_its_judge(conduct: Conduct) -> None:
    run = conduct(BF16).run(BF16)
    assert (run.status, run.reason) == (Status.INCONCLUSIVE, "measured, not judged")


def test_warm_ups_are_kept_apart_from_the_samples(conduct: Conduct) -> None:
    (process,) = conduct(BF16, warmups=3).run(BF16).processes
    assert (len(process.warmups), len(process.samples)) == (3, 2)
    assert process.samples[0].values["denoise_step_ms"] == (20.0, 20.0, 20.0)


def test_the_build_report_has_every_phase(conduct: Conduct) -> None:
    (process,) = conduct(INT8WO).run(INT8WO).processes
    assert set(process.build.seconds) == {*("import", "load", "quantize", "compile", "generate", "fidelity")}
    assert set(process.build.memory) == {"load", "quantize", "compile", "generate"}
    assert process.build.quantization is not None
    assert process.build.quantization.groups[0].count == 24
    assert process.build.values["weight_bytes"] == 24 * 2**20


def test_only_the_first_process_saves_a_picture_in_the_run_directory(
    conduct: Conduct, tmp_path: Path
) -> None:
    platform = dataclasses.replace(CPU_ALONE, samples=5)
    first, second = conduct(BF16, decide=fixed_processes(2), platform=platform).run(BF16).processes
    assert [each.array for each in first.captures] == [
        f"captures/flux-mini-b1-bf16-eager.0.{pair}.npy" for pair in range(PROMPTS)
    ]
    assert all(
        (tmp_path / each.array).exists() and (tmp_path / each.image).exists() for each in first.captures
    )
    assert second.captures == ()


def test_the_first_sample_of_each_pair_is_saved_and_the_first_pair_comes_again(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, saved = Worker.ask, []

    def asked(worker: Worker, request: Request, *others: Any) -> Any:
        if isinstance(request, Generate):
            saved.append((request.pair, request.capture is not None))
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", asked)
    conduct(BF16, platform=dataclasses.replace(CPU_ALONE, samples=5)).run(BF16)
    assert saved == [(0, False), (0, True), (1, True), (2, True), (3, True), (0, False)]


def test_an_injected_rule_ends_the_sampling_of_a_process_and_the_record_says_why(conduct: Conduct) -> None:
    def until_four(case: Case, platform: Platform, samples: Sequence[Sample], /) -> SamplingEnd | None:
        return SamplingEnd.PRECISE if len(samples) == 4 else None

    (process,) = conduct(BF16, end_sampling=until_four).run(BF16).processes
    assert (len(process.samples), process.sampling_end) == (4, SamplingEnd.PRECISE)
    assert process.warmup_end is WarmUpEnd.FIXED


def test_beside_a_twin_every_process_has_as_many_samples_as_the_platform_asks_for(conduct: Conduct) -> None:
    campaign = conduct(BF16, platform=CPU_FAST, end_sampling=lambda *_: SamplingEnd.PRECISE)
    (process,) = campaign.run(BF16).processes
    assert (len(process.samples), process.sampling_end) == (2, SamplingEnd.FIXED)


def test_every_process_has_a_log_in_the_run_directory(conduct: Conduct, tmp_path: Path) -> None:
    processes = conduct(BF16, decide=fixed_processes(2)).run(BF16).processes
    assert [process.log for process in processes] == [
        "logs/flux-mini-b1-bf16-eager.0.log",
        "logs/flux-mini-b1-bf16-eager.1.log",
    ]
    assert all((tmp_path / process.log).exists() for process in processes)


def test_the_first_process_compiles_cold_and_the_next_warm(conduct: Conduct) -> None:
    first, second = conduct(COMPILED, decide=fixed_processes(2)).run(COMPILED).processes
    assert first.build.values["compile_cold_s"] == 6.0
    assert second.build.values["compile_warm_s"] == 1.5
    assert "compile_warm_s" not in first.build.values
    assert "compile_cold_s" not in second.build.values


def test_an_eager_case_has_no_compile_time(conduct: Conduct) -> None:
    (process,) = conduct(BF16).run(BF16).processes
    assert not {"compile_cold_s", "compile_warm_s"} & set(process.build.values)


def test_a_worker_on_the_cpu_sees_no_gpu_and_uses_every_processor_it_may(conduct: Conduct) -> None:
    environment = conduct(BF16).run(BF16).processes[0].environment
    assert environment.gpu is None
    assert environment.variables["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))


def test_a_worker_on_a_gpu_reports_it_and_its_memory(conduct: Conduct) -> None:
    (process,) = conduct("flux1-dev-b1-bf16-eager", platform=GPU).run("flux1-dev-b1-bf16-eager").processes
    assert process.environment.unit == "GPU-00000000-fake"
    assert process.build.memory["generate"].allocated_mib == 400.0
    assert process.samples[0].telemetry is not None


@pytest.mark.parametrize(("throttled", "retaken", "is_valid"), [(0, 0, True), (2, 2, True), (3, 2, False)])
def test_an_invalid_sample_is_taken_again_twice_in_a_process(
    conduct: Conduct, misbehave: Misbehave, throttled: int, retaken: int, is_valid: bool
) -> None:
    misbehave(f"throttled:{throttled}")
    run = conduct("flux1-dev-b1-bf16-eager", platform=GPU).run("flux1-dev-b1-bf16-eager")
    (process,) = run.processes
    assert (len(process.samples), len(process.retaken)) == (1, retaken)
    assert (invalidity(run) is None) == is_valid


def test_the_roofline_of_a_step_is_in_the_record(conduct: Conduct) -> None:
    (process,) = conduct("flux1-dev-b1-bf16-eager", platform=GPU).run("flux1-dev-b1-bf16-eager").processes
    # 1 TFLOP at 989.4 TFLOP/s.
    assert process.build.roofline_ms == pytest.approx(1.01071, rel=1e-5)


def test_an_unknown_case_names_its_neighbours(conduct: Conduct) -> None:
    with pytest.raises(UsageError, match=r"no case 'flux-mini-b1-bf16-eagre' .* nearest: flux-mini-b1-bf16-"):
        conduct(BF16, INT8WO).run("flux-mini-b1-bf16-eagre")


def test_the_number_of_processes_is_bounded(conduct: Conduct) -> None:
    run = conduct(BF16, decide=lambda run: Answer.MORE, max_processes=2).run(BF16)
    assert len(run.processes) == 2


# One build, several workloads


def asked_of_workers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """(worker, what it was asked), in order; case ids for what names a case."""
    ask: Any = Worker.ask
    asked: list[tuple[int, str]] = []

    def noted(worker: Worker, request: Request, *others: Any) -> Any:
        what = (
            request.case.id if isinstance(request, Load | SwitchWorkload) else type(request).__name__.lower()
        )
        asked.append((worker.pid, what))
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", noted)
    return asked


def test_cases_of_one_build_share_a_worker_small_workloads_first(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_of_workers(monkeypatch)
    campaign = conduct(INT8WO_8, INT8WO, INT8WO_4, prepare=lambda run, reference: run)
    campaign.run(INT8WO_8)
    named = [(pid, what) for pid, what in asked if what.startswith("flux")]
    assert [what for _, what in named[3:]] == [INT8WO, INT8WO_4, INT8WO_8]  # the references came first
    assert len({pid for pid, _ in named[3:]}) == 1
    assert {run.id for run in campaign.record.cases} == {INT8WO, INT8WO_4, INT8WO_8}


def test_a_later_workload_pays_for_no_build_and_has_its_evidence(conduct: Conduct) -> None:
    campaign = conduct(INT8WO, INT8WO_4)
    (process,) = campaign.run(INT8WO_4).processes
    assert set(process.build.seconds) == {"turn", "compile", "generate"}
    assert process.build.values["weight_bytes"] == 24 * 2**20
    assert process.build.quantization is not None
    assert process.log == f"logs/{INT8WO}.0.log"
    assert process.samples[0].values["denoise_step_ms"] == (40.0, 40.0, 40.0)
    assert "turn" not in campaign.run(INT8WO).processes[0].build.seconds


def test_each_round_of_processes_is_a_worker_for_all_workloads(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_of_workers(monkeypatch)
    conduct(BF16, BF16_4, decide=fixed_processes(2)).run(BF16)
    assert [what for _, what in asked if what.startswith("flux")] == [BF16, BF16_4] * 2
    assert len({pid for pid, _ in asked}) == 2


def test_a_workload_that_kills_the_worker_costs_the_others_nothing(
    conduct: Conduct, misbehave: Misbehave
) -> None:
    misbehave(f"exit@{INT8WO_4}")
    campaign = conduct(INT8WO, INT8WO_4, INT8WO_8)
    assert campaign.run(INT8WO_4).status is Status.CRASH
    small, large = campaign.run(INT8WO), campaign.run(INT8WO_8)
    assert (small.failure, large.failure) == (None, None)
    assert large.processes[0].log == f"logs/{INT8WO_8}.0.log"  # a worker of its own
    assert len(campaign.run(INT8WO_4).processes[0].samples) == 0


def test_a_case_with_a_fault_has_its_worker_for_itself(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_of_workers(monkeypatch)
    campaign = conduct(BF16, BF16_4, injected=(Injection(fault=Fault.LATENCY, amount=50.0),))
    campaign.run(BF16)
    assert [run.id for run in campaign.record.cases] == [BF16]
    campaign.run(BF16_4)
    loads = [pid for pid, what in asked if what.startswith("flux")]
    assert len(set(loads)) == 2


def test_references_of_one_build_share_a_worker_with_its_cases(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_of_workers(monkeypatch)
    campaign = conduct(INT8WO, INT8WO_8, BF16_4)
    campaign.run(INT8WO)
    references = [(pid, what) for pid, what in asked if "bf16" in what]
    assert [what for _, what in references] == [BF16, BF16_4, "flux-mini-b8-bf16-eager"]
    assert len({pid for pid, _ in references}) == 1
    assert [run.id for run in campaign.record.references] == [BF16, "flux-mini-b8-bf16-eager"]


def test_a_case_of_the_cross_product_is_generated_once_alone(conduct: Conduct) -> None:
    plan = (Planned(CASES[INT8WO], CPU, smoke=True),)
    campaign = conduct(INT8WO, plan=plan)
    (process,) = campaign.run(INT8WO).processes
    assert (len(process.samples), process.twin_samples) == (1, ())
    assert campaign.record.references == ()


def test_artifacts_are_keyed_by_case_stack_and_device(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask: Any = Worker.ask
    files: list[str | None] = []

    def noted(worker: Worker, request: Request, *others: Any) -> Any:
        if isinstance(request, Compile):
            files.append(request.artifacts)
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", noted)
    conduct(COMPILED, artifacts=tmp_path / "caches").run(COMPILED)
    digest = CASES[COMPILED].digest[:16]
    name = f"{COMPILED}-{digest}-torch2.13.0-tritonnone-fake_processor.bin"
    assert files == [str(tmp_path / "caches" / name)]


def test_the_processes_of_a_case_share_the_plan_of_its_stack_and_device(
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


def test_plans_stand_in_the_folder_that_is_named(tmp_path: Path) -> None:
    launcher = Launcher(
        tmp_path, sys.executable, ("-m", "perf_tests.unit.fake_worker"), plans=tmp_path / "mine"
    )
    with launcher.start(Planned(CASES[AUTOQUANT], CPU_ALONE), AUTOQUANT, 0) as worker:
        plan = launcher.plan_of(CASES[AUTOQUANT], worker)
        assert launcher.plan_of(CASES[INT8WO], worker) is None
    assert plan is not None
    assert plan.parent == tmp_path / "mine"


def test_workloads_share_no_plan_and_no_worker(conduct: Conduct) -> None:
    large = larger(AUTOQUANT, height=256, width=256)
    planned = tuple(Planned(case, CPU_ALONE) for case in (CASES[AUTOQUANT], large))
    campaign = conduct(AUTOQUANT, plan=planned)
    logs = [campaign.run(case.id).processes[0].log for case in (CASES[AUTOQUANT], large)]
    assert logs == [f"logs/{AUTOQUANT}.0.log", f"logs/{large.id}.0.log"]


def test_a_composed_latency_is_warmed_up_until_the_step_is_steady(conduct: Conduct) -> None:
    case = larger(BF16, steps=50, measured_steps=4)
    plan = (Planned(case, CPU_ALONE),)
    run = conduct(BF16, plan=plan).run(case.id)
    (process,) = run.processes
    assert run.projected
    assert len(process.warmups) == 2  # the fake worker's second generation is as fast as its first
    assert process.warmup_end is WarmUpEnd.STEADY
    # encode 5 + first 22 + 49 x 20 + decode 10 ms
    assert process.samples[0].values["device_latency_s"] == (1.017,)


# Time


def test_a_case_that_is_not_admitted_is_not_begun_and_its_reference_neither(conduct: Conduct) -> None:
    campaign = conduct(INT8WO, COGVIDEOX, admit=lambda case_id: "spent" if case_id == INT8WO else None)
    run = campaign.run(INT8WO)
    assert (run.status, run.reason, run.processes) == (Status.NOT_RUN, "spent", ())
    assert campaign.record.references == ()
    assert campaign.run(COGVIDEOX).failure is None


def test_time_that_runs_out_between_two_workloads_stops_the_second(conduct: Conduct) -> None:
    done: list[str] = []

    def prepare(run: Run, reference: Run | None) -> Run:
        done.append(run.id)
        return run

    campaign = conduct(BF16, BF16_4, prepare=prepare, admit=lambda case_id: "spent" if done else None)
    assert campaign.run(BF16).failure is None
    assert campaign.run(BF16_4).status is Status.NOT_RUN


def test_a_reference_that_was_not_begun_is_measured_for_the_case_that_was(conduct: Conduct) -> None:
    campaign = conduct(BF16, INT8WO, admit=lambda case_id: "spent" if case_id == BF16 else None)
    assert campaign.run(BF16).status is Status.NOT_RUN
    assert campaign.run(INT8WO).failure is None
    assert [run.id for run in campaign.record.references] == [BF16]


# Resuming


def comparable(record: RunRecord) -> Any:
    """The record without host seconds, and without the log, which tells who shared a worker."""

    def stripped(run: Run) -> Run:
        processes = tuple(
            msgspec.structs.replace(each, log="", build=msgspec.structs.replace(each.build, seconds={}))
            for each in run.processes
        )
        return msgspec.structs.replace(run, processes=processes)

    return msgspec.to_builtins(
        msgspec.structs.replace(
            record,
            cases=tuple(map(stripped, record.cases)),
            references=tuple(map(stripped, record.references)),
        )
    )


PLAN = (INT8WO, INT8WO_4, COMPILED, BF16)


def undisturbed(conduct: Conduct, out: Path) -> RunRecord:
    campaign = conduct(*PLAN, decide=fixed_processes(2), out=out)
    run_all(campaign)
    campaign.close()
    return read_record(out)


def run_all(campaign: Campaign) -> None:
    for case_id in PLAN:
        campaign.run(case_id)


@pytest.mark.parametrize("compilations", [3, 6])
def test_a_run_that_is_interrupted_and_resumed_leaves_the_record_of_an_undisturbed_one(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compilations: int
) -> None:
    whole = undisturbed(conduct, tmp_path / "whole")
    half = tmp_path / "half"
    with monkeypatch.context() as patch:
        interrupt_at(patch, Compile, compilations)
        campaign = conduct(*PLAN, decide=fixed_processes(2), out=half)
        with pytest.raises(KeyboardInterrupt):
            run_all(campaign)
        campaign.interrupt()
    left = read_record(half)
    finished = {run.id: run for run in left.cases if run.reason != "interrupted"}
    resumed = conduct(*PLAN, decide=fixed_processes(2), out=half, resumed=left)
    run_all(resumed)
    resumed.close()
    assert comparable(read_record(half)) == comparable(whole)
    assert {case_id: resumed.run(case_id).processes for case_id in finished} == {
        case_id: run.processes for case_id, run in finished.items()
    }


def test_a_run_that_was_interrupted_after_its_last_process_is_finished_without_another(
    conduct: Conduct, tmp_path: Path
) -> None:
    def interrupted(run: Run, reference: Run | None) -> Run:
        raise KeyboardInterrupt

    campaign = conduct(BF16, prepare=interrupted)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(BF16)
    campaign.interrupt()
    left = read_record(tmp_path)
    assert left.cases[0].reason == "interrupted"
    resumed = conduct(BF16, resumed=left)
    assert resumed.run(BF16).reason == "measured, not judged"
    assert resumed.run(BF16).processes == left.cases[0].processes


def test_what_was_not_run_for_want_of_time_is_run_when_resumed(conduct: Conduct, tmp_path: Path) -> None:
    spent = conduct(BF16, COMPILED, admit=lambda case_id: "spent" if case_id == COMPILED else None)
    spent.run(BF16)
    spent.run(COMPILED)
    spent.close()
    resumed = conduct(BF16, COMPILED, resumed=read_record(tmp_path))
    assert resumed.run(COMPILED).failure is None
    assert resumed.run(BF16).processes == spent.run(BF16).processes


def test_a_failed_case_stays_failed_when_resumed(
    conduct: Conduct, misbehave: Misbehave, tmp_path: Path
) -> None:
    misbehave("exit")
    conduct(BF16).run(BF16)
    misbehave("")
    assert conduct(BF16, resumed=read_record(tmp_path)).run(BF16).status is Status.CRASH


def test_cases_outside_the_plan_are_kept_as_they_are(conduct: Conduct, tmp_path: Path) -> None:
    before = conduct(BF16)
    before.run(BF16)
    before.file(BF16, (verdict("ssim", "first"),), Status.PASS, "")
    resumed = conduct(COMPILED, resumed=read_record(tmp_path))
    resumed.run(COMPILED)
    assert [(run.id, run.status) for run in resumed.record.cases] == [
        (COMPILED, Status.INCONCLUSIVE),
        (BF16, Status.PASS),
    ]


def test_a_case_that_has_changed_since_is_measured_anew(conduct: Conduct, tmp_path: Path) -> None:
    conduct(BF16).run(BF16)
    left = read_record(tmp_path)
    old = msgspec.structs.replace(left.cases[0], digest="0" * 64)
    resumed = conduct(BF16, resumed=msgspec.structs.replace(left, cases=(old,)))
    assert resumed.run(BF16).digest == CASES[BF16].digest


def test_a_resumed_run_on_another_stack_is_refused(
    conduct: Conduct, misbehave: Misbehave, tmp_path: Path
) -> None:
    conduct(BF16).run(BF16)
    (tmp_path / "marker").touch()
    misbehave(f"new-torch:{tmp_path / 'marker'}")
    run = conduct(BF16, COMPILED, resumed=read_record(tmp_path)).run(COMPILED)
    assert run.reason == "stack changed during the run: torch 2.13.0 -> 2.14.0"


def test_on_another_card_a_case_gets_a_reference_of_that_card(conduct: Conduct, tmp_path: Path) -> None:
    first, second = "flux1-dev-b1-fp8dqrow-regional", "flux1-dev-b1-int8dq-regional"
    conduct(first, platform=GPU).run(first)
    left = read_record(tmp_path)
    old = "GPU-of-before"
    left = msgspec.structs.replace(
        left,
        cases=tuple(moved(run, old) for run in left.cases),
        references=tuple(moved(run, old) for run in left.references),
    )
    resumed = conduct(first, second, platform=GPU, resumed=left, unit="GPU-00000000-fake")
    resumed.run(first)
    resumed.run(second)
    here, before = resumed.reference(second), resumed.reference(first)
    assert here is not None
    assert before is not None
    units = [run.processes[0].environment.unit for run in (here, before)]
    assert units == ["GPU-00000000-fake", old]
    assert [run.id for run in resumed.record.references] == ["flux1-dev-b1-bf16-regional"] * 2


def moved(run: Run, unit: str) -> Run:
    """The run as if measured on another card."""
    processes = []
    for process in run.processes:
        assert process.environment.gpu is not None
        gpu = msgspec.structs.replace(process.environment.gpu, uuid=unit)
        environment = msgspec.structs.replace(process.environment, gpu=gpu)
        processes.append(msgspec.structs.replace(process, environment=environment))
    return msgspec.structs.replace(run, processes=tuple(processes))


# References


def test_a_reference_outside_the_plan_is_measured_first_and_listed_apart(conduct: Conduct) -> None:
    campaign = conduct(INT8WO)
    assert campaign.run(INT8WO).reference == BF16
    assert [run.id for run in campaign.record.cases] == [INT8WO]
    assert [run.id for run in campaign.record.references] == [BF16]
    capture = campaign.record.references[0].processes[0].captures[0]
    assert capture.array == "captures/flux-mini-b1-bf16-eager.reference.0.0.npy"


def test_a_planned_reference_is_its_own_case(conduct: Conduct) -> None:
    campaign = conduct(INT8WO, BF16)
    campaign.run(INT8WO)
    assert [run.id for run in campaign.record.cases] == [INT8WO, BF16]
    assert campaign.record.references == ()


def test_the_reference_of_a_case_can_be_asked_for(conduct: Conduct) -> None:
    campaign = conduct(INT8WO)
    campaign.run(INT8WO)
    assert campaign.reference(INT8WO) is campaign.record.references[0]
    assert conduct(BF16).reference(BF16) is None


def test_one_reference_serves_every_case_of_its_build(conduct: Conduct) -> None:
    campaign = conduct(INT8WO, "flux-mini-b1-int8dq-eager")
    campaign.run(INT8WO)
    before = campaign.record.references
    campaign.run("flux-mini-b1-int8dq-eager")
    assert campaign.record.references == before


def test_a_reference_is_never_injected_even_where_its_planned_case_is(conduct: Conduct) -> None:
    campaign = conduct(BF16, INT8WO, injected=(Injection(fault=Fault.LATENCY, amount=150.0),))
    campaign.run(INT8WO)
    campaign.run(BF16)
    (injected,) = (run for run in campaign.record.cases if run.id == BF16)
    (reference,) = campaign.record.references
    assert injected.processes[0].samples[0].values["decode_ms"] == (25.0,)
    assert reference.processes[0].samples[0].values["decode_ms"] == (10.0,)
    assert (injected.injected, reference.injected) == (("latency:+150%",), ())


def test_the_prepared_run_is_the_stored_one_and_sees_its_reference(conduct: Conduct) -> None:
    def prepare(run: Run, reference: Run | None) -> Run:
        return msgspec.structs.replace(run, reason=f"beside {reference.id if reference else 'nothing'}")

    campaign = conduct(INT8WO, prepare=prepare)
    assert campaign.run(INT8WO).reason == f"beside {BF16}"
    assert campaign.record.references[0].reason == "beside nothing"


def test_a_failed_reference_does_not_stop_its_dependent(conduct: Conduct, misbehave: Misbehave) -> None:
    misbehave("exit@*bf16*")
    campaign = conduct(INT8WO)
    assert campaign.run(INT8WO).failure is None
    assert campaign.record.references[0].status is Status.CRASH


# The fp32 twin


def test_every_sample_has_its_twin_and_the_twin_a_run_without_samples(conduct: Conduct) -> None:
    campaign = conduct(BF16, platform=CPU_FAST)
    (process,) = campaign.run(BF16).processes
    assert [sample.values["decode_ms"] for sample in process.twin_samples] == [(10.0,), (10.0,)]
    assert process.twin_samples[0].values["denoise_step_ms"] == (40.0, 40.0, 40.0)
    (twin,) = campaign.record.references
    assert (twin.id, len(twin.processes[0].warmups), twin.processes[0].samples) == (TWIN, 1, ())


def test_twin_and_case_take_turns_in_going_first(conduct: Conduct, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, order = Worker.ask, []

    def asked(worker: Worker, request: Request, *others: Any) -> Any:
        if isinstance(request, Generate) and not request.warmup:
            order.append(worker.pid)
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", asked)
    conduct(BF16, platform=dataclasses.replace(CPU_FAST, samples=3)).run(BF16)
    twin, case = order[:2]
    assert order == [twin, case, case, twin, twin, case]


def test_what_the_twin_generated_beside_others_is_in_its_cost(conduct: Conduct) -> None:
    campaign = conduct(BF16, platform=CPU_FAST)
    campaign.run(BF16)
    (built,) = campaign.record.references
    campaign.close()
    (ended,) = campaign.record.references
    assert ended.processes[0].build.seconds["generate"] > built.processes[0].build.seconds["generate"]


def test_one_twin_serves_all_cases_of_a_pipeline_and_ends_with_it(conduct: Conduct) -> None:
    campaign = conduct(BF16, INT8WO, COGVIDEOX, platform=CPU_FAST)
    campaign.run(BF16)
    campaign.run(INT8WO)
    (twin,) = campaign.record.references
    assert len(twin.processes) == 1
    campaign.run(COGVIDEOX)
    assert len(living_workers()) == 1


def test_a_twin_that_dies_once_is_restarted(conduct: Conduct, misbehave: Misbehave, tmp_path: Path) -> None:
    misbehave(f"die-once:{tmp_path / 'died'}@*fp32*")
    campaign = conduct(BF16, platform=CPU_FAST, out=tmp_path / "run")
    run = campaign.run(BF16)
    assert run.failure is None
    assert len(run.processes[0].twin_samples) == 2
    (twin,) = campaign.record.references
    assert (len(twin.processes), twin.failure) == (2, None)


def test_a_twin_that_dies_again_fails_the_case_by_name(conduct: Conduct, misbehave: Misbehave) -> None:
    misbehave("exit@*fp32*")
    campaign = conduct(BF16, platform=CPU_FAST)
    run = campaign.run(BF16)
    assert run.status is Status.CRASH
    assert run.reason == f"fp32 twin {TWIN}: worker exited with code 3 while generating"
    assert campaign.record.references[0].failure == run.failure


def test_a_twin_does_not_count_its_restarts_across_cases(conduct: Conduct, misbehave: Misbehave) -> None:
    misbehave("exit@*fp32*")
    campaign = conduct(BF16, INT8WO, platform=CPU_FAST)
    campaign.run(BF16)
    campaign.run(INT8WO)
    assert len(campaign.record.references[0].processes) == 4


# Failures


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        pytest.param(Fault.HANG, Status.TIMEOUT, "no answer to generate within 1 s", id="hang"),
        pytest.param(Fault.OOM, Status.OOM, "injected: out of memory", id="oom"),
        pytest.param(Fault.NAN, Status.NUMERICS, "injected: the output holds NaN", id="nan"),
        pytest.param(Fault.CRASH, Status.CRASH, "worker was killed by SIGSEGV while generating", id="crash"),
    ],
)
def test_a_fault_fails_its_case_and_no_other(
    conduct: Conduct, fault: Fault, status: Status, reason: str
) -> None:
    campaign = conduct(BF16, COMPILED, platform=CPU_HASTY, injected=(Injection(fault=fault),))
    run = campaign.run(BF16)
    assert (run.status, run.reason, run.injected) == (status, reason, (fault.value,))
    assert campaign.run(COMPILED).failure is None
    assert living_workers() == []


def test_what_a_failed_process_measured_is_kept(conduct: Conduct, misbehave: Misbehave) -> None:
    misbehave("exit:inspect")
    run = conduct(COMPILED).run(COMPILED)
    (process,) = run.processes
    assert len(process.samples) == 2
    assert process.build.values == {"compile_cold_s": 6.0}
    assert run.failure is not None
    assert run.failure.phase is Phase.INSPECT


def test_a_process_that_did_not_load_leaves_only_its_failure(conduct: Conduct, misbehave: Misbehave) -> None:
    misbehave("exit:load")
    run = conduct(BF16).run(BF16)
    assert run.failure is not None
    assert (run.processes, run.failure.phase) == ((), Phase.LOAD)


def test_a_failure_after_a_good_process_keeps_both_and_starts_no_third(
    conduct: Conduct, misbehave: Misbehave, tmp_path: Path
) -> None:
    def decide(run: Run) -> Answer:
        misbehave("exit")
        return Answer.MORE

    run = conduct(BF16, decide=decide).run(BF16)
    assert [len(process.samples) for process in run.processes] == [2, 0]
    assert run.looks == ("1 process: more",)


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


# The record


def test_the_record_is_written_after_each_case(conduct: Conduct, tmp_path: Path) -> None:
    campaign = conduct(BF16, COMPILED)
    campaign.run(COMPILED)
    assert [run.id for run in read_record(tmp_path).cases] == [COMPILED]
    campaign.run(BF16)
    assert read_record(tmp_path) == campaign.record
    assert [run.id for run in campaign.record.cases] == [BF16, COMPILED]


def test_the_record_says_when_how_and_on_what(conduct: Conduct) -> None:
    campaign = conduct(BF16)
    assert campaign.record.environment is None
    campaign.run(BF16)
    record = campaign.record
    assert (record.created_at, record.command) == (CREATED_AT, "pytest -m cpu")
    assert record.environment is not None
    assert record.environment.cpu_model == "fake processor"


def test_filed_verdicts_are_added_and_replaced_by_metric(conduct: Conduct, tmp_path: Path) -> None:
    campaign = conduct(BF16)
    campaign.run(BF16)
    campaign.file(BF16, (verdict("ssim", "first"), verdict("decode_ms", "first")), Status.PASS, "all well")
    filed = campaign.file(BF16, (verdict("ssim", "second"),), Status.REGRESSED, "ssim")
    (run,) = read_record(tmp_path).cases
    assert run == filed
    assert [(v.metric, v.reason) for v in run.verdicts] == [("ssim", "second"), ("decode_ms", "first")]
    assert (run.status, run.reason) == (Status.REGRESSED, "ssim")


def test_a_case_that_was_not_run_can_be_filed_as_such(conduct: Conduct) -> None:
    campaign = conduct(BF16)
    campaign.file(BF16, (), Status.NOT_RUN, "the budget of 9 min is spent")
    run = campaign.run(BF16)
    assert (run.status, run.processes) == (Status.NOT_RUN, ())


def test_missing_pairs_are_recorded(conduct: Conduct, tmp_path: Path) -> None:
    campaign = conduct(BF16)
    campaign.set_missing(("flux-mini-b1-bf16-eager: ssim",))
    campaign.close()
    assert read_record(tmp_path).missing == ("flux-mini-b1-bf16-eager: ssim",)


def test_a_full_disk_is_one_sentence_and_costs_no_measurement(conduct: Conduct, tmp_path: Path) -> None:
    campaign = conduct(BF16)
    (tmp_path / f"run.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(PerfError, match=r"cannot write .*No space left on device"):
        campaign.run(BF16)
    campaign.close()
    assert len(read_record(tmp_path).cases[0].processes) == 1


# The end


def test_no_worker_outlives_the_campaign(conduct: Conduct) -> None:
    campaign = conduct(BF16, platform=CPU_FAST)
    campaign.run(BF16)
    assert len(living_workers()) == 1  # the twin
    campaign.close()
    assert living_workers() == []


def test_an_interrupted_campaign_kills_its_workers_and_writes_what_it_has(
    conduct: Conduct, tmp_path: Path
) -> None:
    campaign = conduct(BF16, platform=CPU_FAST)
    campaign.run(BF16)
    (tmp_path / "run.json").unlink()
    campaign.interrupt()
    assert living_workers() == []
    assert read_record(tmp_path) == campaign.record


def test_closing_twice_writes_once(conduct: Conduct, tmp_path: Path) -> None:
    campaign = conduct(BF16)
    campaign.close()
    (tmp_path / "run.json").unlink()
    campaign.close()
    assert not (tmp_path / "run.json").exists()


def test_ctrl_c_in_the_first_process_leaves_no_entry_and_no_worker(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt_at(monkeypatch, Compile, 2)
    campaign = conduct(COMPILED, BF16, platform=CPU_ALONE)
    campaign.run(BF16)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(COMPILED)
    assert living_workers() == []
    campaign.interrupt()
    assert [run.id for run in read_record(tmp_path).cases] == [BF16]


def test_ctrl_c_in_a_later_process_keeps_the_finished_ones(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt_at(monkeypatch, Compile, 3)
    campaign = conduct(COMPILED, decide=fixed_processes(3))
    with pytest.raises(KeyboardInterrupt):
        campaign.run(COMPILED)
    campaign.interrupt()
    (run,) = read_record(tmp_path).cases
    assert (run.status, run.reason, len(run.processes)) == (Status.INCONCLUSIVE, "interrupted", 2)
    assert not (tmp_path / "cache" / COMPILED).exists()


def test_ctrl_c_while_the_twin_is_built_leaves_no_worker(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, Compile, 2)
    with pytest.raises(KeyboardInterrupt):
        conduct(BF16, platform=CPU_FAST).run(BF16)
    assert living_workers() == []


def interrupt_at(monkeypatch: pytest.MonkeyPatch, request_type: type[Request], count: int) -> None:
    """Ctrl-C when a worker is asked the `count`-th request of a type."""
    ask, asked = Worker.ask, []

    def interrupted(worker: Worker, request: Request, *others: Any) -> Any:
        asked.append(type(request))
        if asked[-1] is request_type and asked.count(request_type) == count:
            raise KeyboardInterrupt
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", interrupted)
