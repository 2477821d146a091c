"""What a campaign measures, in which order, and what it leaves in the record."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.sampling import Answer
from perf_tests.harness.runs.record import Run, Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.protocol.messages import (
    Fault,
    Injection,
)
from perf_tests.unit.conftest import Misbehave
from perf_tests.unit.harness.execution.campaigns import (
    BF16,
    BF16_4,
    COGVIDEOX,
    COMPILED,
    CPU_FAST,
    CREATED_AT,
    INT8WO,
    Conduct,
    living_workers,
    verdict,
)


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


def test_an_unknown_case_is_refused_with_similar_ids(conduct: Conduct) -> None:
    with pytest.raises(UsageError, match=r"no case 'flux-mini-b1-bf16-eagre' .* nearest: flux-mini-b1-bf16-"):
        conduct(BF16, INT8WO).run("flux-mini-b1-bf16-eagre")


def test_processes_are_bounded_in_number(conduct: Conduct) -> None:
    run = conduct(BF16, decide=lambda run: Answer.MORE, max_processes=2).run(BF16)
    assert len(run.processes) == 2


# References


def test_a_reference_that_is_not_selected_is_measured_first_and_listed_apart(conduct: Conduct) -> None:
    campaign = conduct(INT8WO)
    assert campaign.run(INT8WO).reference == BF16
    assert [run.id for run in campaign.record.cases] == [INT8WO]
    assert [run.id for run in campaign.record.references] == [BF16]
    capture = campaign.record.references[0].processes[0].captures[0]
    assert capture.array == "captures/flux-mini-b1-bf16-eager.reference.0.0.npy"


def test_a_selected_reference_is_a_case_of_its_own(conduct: Conduct) -> None:
    campaign = conduct(INT8WO, BF16)
    campaign.run(INT8WO)
    assert [run.id for run in campaign.record.cases] == [INT8WO, BF16]
    assert campaign.record.references == ()


def test_the_reference_of_a_case_can_be_asked_for(conduct: Conduct) -> None:
    campaign = conduct(INT8WO)
    campaign.run(INT8WO)
    assert campaign.reference(INT8WO) is campaign.record.references[0]
    assert conduct(BF16).reference(BF16) is None


def test_a_reference_serves_every_case_of_its_build(conduct: Conduct) -> None:
    campaign = conduct(INT8WO, "flux-mini-b1-int8dq-eager")
    campaign.run(INT8WO)
    before = campaign.record.references
    campaign.run("flux-mini-b1-int8dq-eager")
    assert campaign.record.references == before


def test_a_reference_is_free_of_faults_even_where_the_selected_case_is_not(conduct: Conduct) -> None:
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


def test_a_case_is_drawn_before_another_card_can_remove_its_arrays(conduct: Conduct, tmp_path: Path) -> None:
    campaign: Campaign
    there: list[bool] = []

    def draw(run: Run) -> None:
        campaign._arrays.remove_unneeded()  # as the lane of another card does at any time
        files = (capture.array for process in run.processes for capture in process.captures)
        there.extend((tmp_path / file).is_file() for file in files)

    campaign = conduct(INT8WO, draw=draw)
    captures = campaign.run(INT8WO).processes[0].captures
    assert there
    assert all(there)
    assert not any((tmp_path / capture.array).exists() for capture in captures)


def test_a_failed_reference_does_not_stop_its_dependent(conduct: Conduct, misbehave: Misbehave) -> None:
    misbehave("exit@*bf16*")
    campaign = conduct(INT8WO)
    assert campaign.run(INT8WO).failure is None
    assert campaign.record.references[0].status is Status.CRASH


# The budget


def test_a_case_that_is_not_admitted_is_not_started_nor_is_its_reference(conduct: Conduct) -> None:
    campaign = conduct(INT8WO, COGVIDEOX, admit=lambda case_id: "spent" if case_id == INT8WO else None)
    run = campaign.run(INT8WO)
    assert (run.status, run.reason, run.processes) == (Status.NOT_RUN, "spent", ())
    assert campaign.record.references == ()
    assert campaign.run(COGVIDEOX).failure is None


def test_a_workload_is_not_started_once_time_ran_out_after_another(conduct: Conduct) -> None:
    done: list[str] = []

    def prepare(run: Run, reference: Run | None) -> Run:
        done.append(run.id)
        return run

    campaign = conduct(BF16, BF16_4, prepare=prepare, admit=lambda case_id: "spent" if done else None)
    assert campaign.run(BF16).failure is None
    assert campaign.run(BF16_4).status is Status.NOT_RUN


def test_a_reference_that_was_not_started_is_measured_for_the_case_that_was(conduct: Conduct) -> None:
    campaign = conduct(BF16, INT8WO, admit=lambda case_id: "spent" if case_id == BF16 else None)
    assert campaign.run(BF16).status is Status.NOT_RUN
    assert campaign.run(INT8WO).failure is None
    assert [run.id for run in campaign.record.references] == [BF16]


# The record


def test_the_record_is_written_after_each_case(conduct: Conduct, tmp_path: Path) -> None:
    campaign = conduct(BF16, COMPILED)
    campaign.run(COMPILED)
    assert [run.id for run in read_record(tmp_path).cases] == [COMPILED]
    campaign.run(BF16)
    measured = campaign.record.cases
    assert read_record(tmp_path).cases == measured[::-1]  # in the order of measuring, until the session ends
    campaign.close()
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


def test_a_full_disk_is_reported_and_costs_no_measurement(conduct: Conduct, tmp_path: Path) -> None:
    campaign = conduct(BF16)
    (tmp_path / f"run.jsonl.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(PerfError, match=r"cannot write .*No space left on device"):
        campaign.run(BF16)
    campaign.close()
    assert len(read_record(tmp_path).cases[0].processes) == 1


# The end


def test_workers_do_not_outlive_the_campaign(conduct: Conduct) -> None:
    campaign = conduct(BF16, platform=CPU_FAST)
    campaign.run(BF16)
    assert len(living_workers()) == 1  # the twin
    campaign.close()
    assert living_workers() == []


def test_a_campaign_closed_twice_writes_once(conduct: Conduct, tmp_path: Path) -> None:
    campaign = conduct(BF16)
    campaign.close()
    (tmp_path / "run.json").unlink()
    campaign.close()
    assert not (tmp_path / "run.json").exists()
