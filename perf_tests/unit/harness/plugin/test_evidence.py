"""What a session records of red cases once everything is timed, seen from outside on fake workers."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from typing import Any

import pytest

from perf_tests.harness.plugin import ab_session
from perf_tests.harness.processes import worker_process
from perf_tests.harness.records.evidence import Evidence
from perf_tests.harness.runs.record import Side, Status
from perf_tests.unit.conftest import FP8DQROW, ROOT, Plug, Suite
from perf_tests.unit.fake_worker.evidence import GEMM, REFUSED

STEP = "denoise_step_ms"
BF16 = "flux1-dev-b1-bf16-regional"
LATENCY = (str(ROOT / "perf_tests" / "test_latency.py"),)
MEMORY = (str(ROOT / "perf_tests" / "test_memory.py"),)
FILES = {
    Side.STABLE: f"profiles/{FP8DQROW}.stable.json.gz",
    Side.CANDIDATE: f"profiles/{FP8DQROW}.candidate.json.gz",
}

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def compared(suite: Suite, plug_gpu: Plug, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the latency of one H100 case against a stable stack; switches of the fake worker for each side."""
    start = worker_process.start_process
    stable = suite.folder / "stable"
    stable.write_text("#!/bin/false\n")
    stable.chmod(0o755)
    switches: dict[str, str] = {}

    def start_process(command: tuple[str, ...], **settings: Any) -> Any:
        python, *others = command
        if python == str(stable):
            command = (sys.executable, *others)
        switch = switches["stable" if python == str(stable) else "candidate"]
        settings["environment"] = {**settings["environment"], "PERF_FAKE": switch}
        return start(command, **settings)

    monkeypatch.setattr(worker_process, "start_process", start_process)
    monkeypatch.setattr(ab_session, "MIN_PAIRS", 2)
    plug_gpu()

    def run(
        *arguments: str,
        stable_does: str = "",
        candidate_does: str = "slower:10",
        tests: tuple[str, ...] = LATENCY,
    ) -> pytest.RunResult:
        switches.update(stable=stable_does, candidate=candidate_does)
        command = ("-m", "h100", f"--perf-case={FP8DQROW}", "--perf-max-processes=1")
        return suite.run(*command, "--perf-table=red", f"--perf-against={stable}", *arguments, tests=tests)

    return run


def evidence(suite: Suite) -> Evidence:
    (found,) = suite.record().evidence
    return found


def text(result: pytest.RunResult) -> str:
    return " ".join(str(result.stdout).split())


def test_a_confirmed_time_is_told_by_its_kernels_and_both_traces_are_kept(
    suite: Suite, compared: Run
) -> None:
    result = compared(candidate_does="slower:10,slower-kernel:310,other-kernel")
    assert suite.statuses(FP8DQROW)[STEP] is Status.REGRESSED
    found = evidence(suite)
    assert found.id == FP8DQROW
    assert found.step is not None
    (gemm,) = found.step.slower
    assert (gemm.stable, gemm.candidate, gemm.more_us) == ((GEMM,), ("nvjet_tst_128x256",), 310.0)
    assert (found.profile_problem, found.snapshot_problem) == ("", "")
    assert found.traces == {side.value: file for side, file in FILES.items()}
    for file in FILES.values():
        assert b"traceEvents" in gzip.decompress((suite.out / file).read_bytes())
    assert (suite.out / found.script).read_text().startswith(f'"""The denoise step of {FP8DQROW}.')
    said = text(result)
    assert "kernels one profiled step: 1.490 -> 1.800 ms in kernels" in said
    assert f"kept of {FP8DQROW}: repro/{FP8DQROW}.py, {FILES[Side.STABLE]}, {FILES[Side.CANDIDATE]}" in said
    assert f"+0.310 ms to 1.210 ms, 57 x nvjet_tst_128x256 instead of {GEMM}" in said


def test_a_time_that_the_stable_stack_has_too_is_not_profiled(suite: Suite, compared: Run) -> None:
    compared(stable_does="slower:10")
    assert suite.statuses(FP8DQROW)[STEP] is Status.REGRESSED
    assert suite.record().evidence == ()
    assert not (suite.out / "profiles").exists()


@pytest.mark.parametrize(
    ("switch", "problem"),
    [
        ("unprofiled", f"candidate: {REFUSED}"),
        ("exit:profile", "candidate: ERROR(crash): "),
        ("garbage:profile", "candidate: ERROR(crash): "),
        ("trace-elsewhere", "candidate: ERROR(crash): "),
    ],
)
def test_a_profile_that_fails_is_a_sentence_and_no_verdict_changes(
    suite: Suite, compared: Run, switch: str, problem: str
) -> None:
    result = compared(candidate_does=f"slower:10,{switch}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert suite.statuses(FP8DQROW)[STEP] is Status.REGRESSED
    assert (
        "; confirmed: also 10 % slower"
        in {each.metric: each.reason for each in suite.case(FP8DQROW).verdicts}[STEP]
    )
    found = evidence(suite)
    assert found.step is None
    assert found.profile_problem.startswith(problem)
    assert found.traces == {"stable": FILES[Side.STABLE]}
    assert found.script
    assert f"{FILES[Side.STABLE]}; which kernels: candidate: " in text(result)


def test_a_snapshot_that_fails_leaves_the_profile_that_was_taken_before(suite: Suite, compared: Run) -> None:
    compared(
        "--perf-inject=memory:+20%",
        candidate_does="slower:10,slower-kernel:310,snapshot-elsewhere",
        tests=(*LATENCY, *MEMORY),
    )
    found = evidence(suite)
    assert found.snapshot_problem.startswith("candidate: ERROR(crash): ")
    assert found.profile_problem == ""
    assert found.step is not None
    assert found.step.slower[0].more_us == 310.0
    assert found.traces == {side.value: file for side, file in FILES.items()}


def test_what_the_budget_has_no_time_for_is_not_begun(
    suite: Suite, compared: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perf_tests.harness.profiles.gathering._seconds", lambda wanted: 1e6)
    compared("--perf-budget=9m")
    found = evidence(suite)
    assert found.profile_problem.startswith("it takes about 1000000 s, and ")
    assert found.profile_problem.endswith(" s are left of the budget of 540 s")
    assert (found.step, found.traces) == (None, {})
    assert found.script == f"repro/{FP8DQROW}.py"


def test_even_a_mistake_of_ours_costs_no_verdict(
    suite: Suite, compared: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a kernel")

    monkeypatch.setattr("perf_tests.harness.profiles.gathering.step_change", fail)
    result = compared()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert evidence(suite).profile_problem == "KeyError: 'a kernel'"


def test_with_several_cards_a_step_is_profiled_on_the_card_of_its_case(
    suite: Suite, compared: Run, plug_gpus: Plug
) -> None:
    plug_gpus(2)
    compared("--perf-gpus=all")
    (run,) = suite.record().cases
    found = evidence(suite)
    assert found.step is not None
    assert (suite.out / "logs" / run.processes[0].environment.unit / f"{FP8DQROW}.candidate.10.log").is_file()


def test_a_resumed_session_keeps_what_is_recorded(suite: Suite, compared: Run) -> None:
    compared()
    (suite.out / FILES[Side.STABLE]).write_bytes(b"as it was")
    compared("--perf-resume")
    assert evidence(suite).step is not None
    assert (suite.out / FILES[Side.STABLE]).read_bytes() == b"as it was"


def test_a_resumed_session_of_other_cases_keeps_what_is_recorded(suite: Suite, compared: Run) -> None:
    compared()
    before = evidence(suite)
    suite.run("-m", "h100", f"--perf-case={BF16}", "--perf-max-processes=1", "--perf-resume", tests=LATENCY)
    assert {each.id for each in suite.record().cases} == {FP8DQROW, BF16}
    assert evidence(suite) == before


def test_ctrl_c_while_it_is_recorded_loses_no_verdict(
    suite: Suite, compared: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("perf_tests.harness.profiles.gathering.step_change", interrupt)
    with pytest.raises(KeyboardInterrupt):  # which pytester passes on
        compared()
    assert suite.statuses(FP8DQROW)[STEP] is Status.REGRESSED
    assert suite.record().missing == ()
    assert suite.record().evidence == ()


def test_a_red_peak_is_told_by_its_largest_allocations(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    command = ("-m", "h100", f"--perf-case={FP8DQROW}", "--perf-max-processes=1")
    result = suite.run(*command, "--perf-table=red", "--perf-inject=memory:+20%", tests=MEMORY)
    assert suite.statuses(FP8DQROW)["peak_allocated_mib"] is Status.REGRESSED
    found = evidence(suite)
    assert [each.mib for each in found.largest] == [96.0, 12.5]
    assert (suite.out / found.snapshot).is_file()
    assert found.traces == {}
    said = text(result)
    assert "memory at its peak a generation held 110.5 MiB beside 24.0 MiB from before" in said
    assert "96.0 MiB models/attention.py:120 forward" in said
