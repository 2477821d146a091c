"""A session continues the record of an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.runs.record import Run, RunRecord, Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.messages import (
    Compile,
)
from perf_tests.unit.conftest import Misbehave
from perf_tests.unit.harness.execution.campaigns import (
    BF16,
    CASES,
    COMPILED,
    GPU,
    INT8WO,
    INT8WO_4,
    Conduct,
    fixed_processes,
    interrupt_at,
    verdict,
)


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
        campaign.abort()
        campaign.close()
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
    campaign.abort()
    campaign.close()
    left = read_record(tmp_path)
    assert left.cases[0].reason == "interrupted"
    resumed = conduct(BF16, resumed=left)
    assert resumed.run(BF16).reason == "measured, not judged"
    assert resumed.run(BF16).processes == left.cases[0].processes


def test_a_case_that_lacked_time_is_run_when_resumed(conduct: Conduct, tmp_path: Path) -> None:
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


def test_cases_that_are_not_selected_are_kept_as_they_are(conduct: Conduct, tmp_path: Path) -> None:
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


def test_a_case_on_another_card_gets_a_reference_of_that_card(conduct: Conduct, tmp_path: Path) -> None:
    first, second = "flux1-dev-b1-fp8dqrow-regional", "flux1-dev-b1-int8dq-regional"
    conduct(first, platform=GPU).run(first)
    left = read_record(tmp_path)
    old = "GPU-earlier"
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


@pytest.mark.parametrize(
    ("began_on", "kept"),
    [pytest.param("GPU-00000000-fake", 1, id="here"), pytest.param("GPU-earlier", 0, id="gone")],
)
def test_a_case_that_was_begun_on_another_card_is_begun_anew(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, began_on: str, kept: int
) -> None:
    case = "flux1-dev-b1-fp8dqrow-regional"
    with monkeypatch.context() as patch:
        interrupt_at(patch, Compile, 5)  # the second process of the case, after three of its reference
        campaign = conduct(case, platform=GPU, decide=fixed_processes(3))
        with pytest.raises(KeyboardInterrupt):
            campaign.run(case)
        campaign.abort()
        campaign.close()
    left = read_record(tmp_path)
    (begun,) = (moved(run, began_on) for run in left.cases)
    assert len(begun.processes) == 1

    resumed = conduct(
        case,
        platform=GPU,
        decide=fixed_processes(3),
        resumed=msgspec.structs.replace(left, cases=(begun,)),
        unit="GPU-00000000-fake",
    )
    processes = resumed.run(case).processes
    assert {each.environment.unit for each in processes} == {"GPU-00000000-fake"}
    assert len(processes) == 3
    assert [each for each in processes if each in begun.processes] == list(begun.processes[:kept])


def moved(run: Run, unit: str) -> Run:
    """The run as if measured on another card."""
    processes = []
    for process in run.processes:
        assert process.environment.gpu is not None
        gpu = msgspec.structs.replace(process.environment.gpu, uuid=unit)
        environment = msgspec.structs.replace(process.environment, gpu=gpu)
        processes.append(msgspec.structs.replace(process, environment=environment))
    return msgspec.structs.replace(run, processes=tuple(processes))
