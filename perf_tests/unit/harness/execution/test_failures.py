"""Workers that fail, and Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.harness.execution.sampling import Answer
from perf_tests.harness.runs.record import Run, Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.protocol.messages import (
    Compile,
    Fault,
    Injection,
    Phase,
)
from perf_tests.unit.conftest import Misbehave, QuietHost
from perf_tests.unit.harness.execution.campaigns import (
    BF16,
    COMPILED,
    CPU_ALONE,
    CPU_FAST,
    CPU_HASTY,
    Conduct,
    fixed_processes,
    interrupt_at,
    living_workers,
)

WAITED = "while tasks waited for a processor 0 % of the time"


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        pytest.param(
            Fault.HANG,
            Status.TIMEOUT,
            f"no answer to generate within 3 s, {WAITED}",
            id="hang",
        ),
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


def test_a_hang_on_a_busy_host_is_invalid_and_measured_again_by_a_session_that_resumes(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(QuietHost, "pressure_pct", lambda _: 93.0)
    run = conduct(BF16, platform=CPU_HASTY, injected=(Injection(fault=Fault.HANG),)).run(BF16)
    assert run.status is Status.INVALID
    assert run.reason == (
        "no answer to generate within 3 s, while tasks waited for a processor 93 % of the time; "
        "the host was too busy to call that a hang, measure again when it is not"
    )
    monkeypatch.undo()
    again = conduct(BF16, resumed=read_record(tmp_path)).run(BF16)
    assert (again.failure, len(again.processes)) == (None, 1)


def test_a_failed_process_keeps_what_it_measured(conduct: Conduct, misbehave: Misbehave) -> None:
    misbehave("exit:inspect")
    run = conduct(COMPILED).run(COMPILED)
    (process,) = run.processes
    assert len(process.samples) == 2
    assert process.build.values == {"compile_cold_s": 6.0, "load_s": 0.5, "quantize_s": 0.25}
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


# Ctrl-C


def test_an_interrupted_campaign_kills_its_workers_and_writes_what_it_has(
    conduct: Conduct, tmp_path: Path
) -> None:
    campaign = conduct(BF16, platform=CPU_FAST)
    campaign.run(BF16)
    (tmp_path / "run.jsonl").unlink()
    campaign.abort()
    campaign.close()
    assert living_workers() == []
    assert read_record(tmp_path) == campaign.record


def test_ctrl_c_in_the_first_process_leaves_no_entry_and_no_worker(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt_at(monkeypatch, Compile, 2)
    campaign = conduct(COMPILED, BF16, platform=CPU_ALONE)
    campaign.run(BF16)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(COMPILED)
    assert living_workers() == []
    campaign.abort()
    campaign.close()
    assert [run.id for run in read_record(tmp_path).cases] == [BF16]


def test_ctrl_c_in_a_later_process_keeps_the_finished_ones(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt_at(monkeypatch, Compile, 3)
    campaign = conduct(COMPILED, decide=fixed_processes(3))
    with pytest.raises(KeyboardInterrupt):
        campaign.run(COMPILED)
    campaign.abort()
    campaign.close()
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
