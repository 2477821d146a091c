"""Cases of one build measured in one worker, and the fp32 twin that generates with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.records.process_ends import SamplingEnd
from perf_tests.harness.runs.record import Status
from perf_tests.protocol.messages import (
    Fault,
    Generate,
    Injection,
    Load,
    Request,
    SwitchWorkload,
)
from perf_tests.tables.platforms import CPU
from perf_tests.unit.conftest import Misbehave
from perf_tests.unit.harness.execution.campaigns import (
    AUTOQUANT,
    BF16,
    BF16_4,
    CASES,
    COGVIDEOX,
    CPU_ALONE,
    CPU_FAST,
    INT8WO,
    INT8WO_4,
    INT8WO_8,
    TWIN,
    Conduct,
    fixed_processes,
    larger,
    living_workers,
)


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


def test_a_later_workload_pays_for_no_build_and_has_its_build_report(conduct: Conduct) -> None:
    campaign = conduct(INT8WO, INT8WO_4)
    (process,) = campaign.run(INT8WO_4).processes
    assert set(process.build.seconds) == {"turn", "compile", "generate", "inspect"}
    assert process.build.values["weight_bytes"] == 24 * 2**20
    assert process.build.quantization is not None
    assert process.log == f"logs/{INT8WO}.0.log"
    assert process.samples[0].values["denoise_step_ms"] == (40.0, 40.0, 40.0)
    assert "turn" not in campaign.run(INT8WO).processes[0].build.seconds


def test_a_round_of_processes_is_one_worker_for_all_workloads(
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


def test_a_case_with_a_fault_has_a_worker_of_its_own(
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


def test_a_case_that_is_only_verified_is_generated_once_without_twin_or_reference(conduct: Conduct) -> None:
    selected = (Planned(CASES[INT8WO], CPU, verified_only=True),)
    campaign = conduct(INT8WO, selected=selected)
    (process,) = campaign.run(INT8WO).processes
    assert (len(process.samples), process.twin_samples) == (1, ())
    assert campaign.record.references == ()


def test_workloads_of_a_scheme_with_a_search_share_no_worker(conduct: Conduct) -> None:
    large = larger(AUTOQUANT, height=256, width=256)
    selected = tuple(Planned(case, CPU_ALONE) for case in (CASES[AUTOQUANT], large))
    campaign = conduct(AUTOQUANT, selected=selected)
    logs = [campaign.run(case.id).processes[0].log for case in (CASES[AUTOQUANT], large)]
    assert logs == [f"logs/{AUTOQUANT}.0.log", f"logs/{large.id}.0.log"]


# The fp32 twin


def test_a_process_with_a_twin_has_as_many_samples_as_the_platform_asks_for(conduct: Conduct) -> None:
    campaign = conduct(BF16, platform=CPU_FAST, end_sampling=lambda *_: SamplingEnd.PRECISE)
    (process,) = campaign.run(BF16).processes
    assert (len(process.samples), process.sampling_end) == (2, SamplingEnd.FIXED)


def test_a_reference_that_nobody_selected_generates_without_the_twin(conduct: Conduct) -> None:
    campaign = conduct(INT8WO, platform=CPU_FAST, end_sampling=lambda *_: SamplingEnd.PRECISE)
    reference = campaign.reference(INT8WO)
    assert reference is not None
    (of_case,), (of_reference,) = campaign.run(INT8WO).processes, reference.processes
    assert (len(of_case.samples), len(of_case.twin_samples)) == (2, 2)
    assert (len(of_reference.samples), len(of_reference.twin_samples)) == (2, 0)
    assert of_reference.sampling_end is SamplingEnd.FIXED


def test_a_sample_has_a_twin_sample_and_the_twin_a_run_without_samples(conduct: Conduct) -> None:
    campaign = conduct(BF16, platform=CPU_FAST)
    (process,) = campaign.run(BF16).processes
    assert [sample.values["decode_ms"] for sample in process.twin_samples] == [(10.0,), (10.0,)]
    assert process.twin_samples[0].values["denoise_step_ms"] == (40.0, 40.0, 40.0)
    (twin,) = campaign.record.references
    assert (twin.id, len(twin.processes[0].warmups), twin.processes[0].samples) == (TWIN, 1, ())


def test_twin_and_case_alternate_in_going_first(conduct: Conduct, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, order = Worker.ask, []

    def asked(worker: Worker, request: Request, *others: Any) -> Any:
        if isinstance(request, Generate) and not request.warmup:
            order.append(worker.pid)
        return ask(worker, request, *others)

    monkeypatch.setattr(Worker, "ask", asked)
    conduct(BF16, platform=dataclasses.replace(CPU_FAST, samples=3)).run(BF16)
    twin, case = order[:2]
    assert order == [twin, case, case, twin, twin, case]


def test_a_twin_is_charged_for_what_it_generated_for_others(conduct: Conduct) -> None:
    campaign = conduct(BF16, platform=CPU_FAST)
    campaign.run(BF16)
    (built,) = campaign.record.references
    campaign.close()
    (ended,) = campaign.record.references
    assert ended.processes[0].build.seconds["generate"] > built.processes[0].build.seconds["generate"]


def test_a_twin_serves_all_cases_of_its_pipeline_and_ends_with_them(conduct: Conduct) -> None:
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


TWIN_4 = "flux-mini-b4-fp32-eager"


def test_a_twin_switches_between_the_workloads_of_its_cases(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_of_workers(monkeypatch)
    campaign = conduct(BF16, BF16_4, INT8WO, platform=CPU_FAST)
    campaign.run(BF16)
    campaign.run(INT8WO)
    twin = [(pid, what) for pid, what in asked if "fp32" in what]
    assert [what for _, what in twin] == [TWIN, TWIN_4, TWIN]
    assert len({pid for pid, _ in twin}) == 1
    campaign.close()
    runs = {run.id: run for run in campaign.record.references}
    assert [sorted(each.build.seconds) for each in runs[TWIN].processes] == [
        ["compile", "generate", "import", "load", "quantize"],
        ["compile", "generate", "turn"],
    ]
    (large,) = runs[TWIN_4].processes
    assert sorted(large.build.seconds) == ["compile", "generate", "turn"]
    assert large.log == f"logs/{TWIN}.reference.0.log"


def test_a_twin_begins_each_case_with_the_first_pair(conduct: Conduct) -> None:
    campaign = conduct(BF16, INT8WO, platform=dataclasses.replace(CPU_FAST, samples=3))
    for case_id in (BF16, INT8WO):
        (process,) = campaign.run(case_id).processes
        assert [sample.pair for sample in process.samples] == [0, 1, 2]
        assert [sample.pair for sample in process.twin_samples] == [0, 1, 2]


def test_a_twin_generates_the_pairs_of_its_case_in_each_of_its_processes(conduct: Conduct) -> None:
    platform = dataclasses.replace(CPU_FAST, samples=3)
    campaign = conduct(BF16, platform=platform, decide=fixed_processes(2))
    pairs = [[each.pair for each in process.twin_samples] for process in campaign.run(BF16).processes]
    assert pairs == [[0, 1, 2], [0, 1, 2]]


def test_a_twin_that_is_restarted_goes_on_with_the_pair_of_its_case(
    conduct: Conduct, misbehave: Misbehave
) -> None:
    misbehave("drifts:5@*fp32*")
    campaign = conduct(BF16, platform=dataclasses.replace(CPU_FAST, samples=6))
    (process,) = campaign.run(BF16).processes
    assert [sample.pair for sample in process.twin_samples] == [0, 1, 2, 3, 0, 1]
    assert len(campaign.record.references[0].processes) == 2


def test_a_twin_in_another_state_than_before_is_started_anew(conduct: Conduct, misbehave: Misbehave) -> None:
    misbehave("drifts:2@*fp32*")
    campaign = conduct(BF16, INT8WO, platform=CPU_FAST)
    hashes = [
        [sample.output_sha256 for sample in campaign.run(case_id).processes[0].twin_samples]
        for case_id in (BF16, INT8WO)
    ]
    assert campaign.run(INT8WO).failure is None
    assert hashes[0] == hashes[1]
    assert len(campaign.record.references[0].processes) == 2


def test_a_twin_that_never_repeats_a_picture_fails_the_case_by_name(
    conduct: Conduct, misbehave: Misbehave
) -> None:
    misbehave("never-repeats@*fp32*")
    campaign = conduct(BF16, INT8WO, platform=CPU_FAST)
    assert campaign.run(BF16).failure is None  # nothing is repeated yet
    run = campaign.run(INT8WO)
    assert run.status is Status.CRASH
    assert run.reason.startswith(f"fp32 twin {TWIN}: the answer to generate is not what was asked for: its ")
    assert run.reason.endswith("a case that it generated with has left it in another state")


def test_a_twin_that_dies_while_it_switches_costs_one_case_at_most(
    conduct: Conduct, misbehave: Misbehave
) -> None:
    misbehave(f"exit:turn@{TWIN_4}")
    campaign = conduct(BF16, BF16_4, INT8WO, platform=CPU_FAST)
    assert [campaign.run(case_id).failure for case_id in (BF16, BF16_4, INT8WO)] == [None, None, None]
    assert [len(run.processes) for run in campaign.record.references if run.id == TWIN_4] == [1]
