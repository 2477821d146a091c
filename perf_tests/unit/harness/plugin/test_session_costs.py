"""What a session costs, seen from outside: its plan, its budget, resuming, compile caches."""

from __future__ import annotations

import shutil
import signal

import msgspec
import pytest

from perf_tests.harness.runs.record import RunRecord, Status
from perf_tests.harness.runs.record_file import write_record
from perf_tests.unit.conftest import (
    BF16,
    COMPILED,
    FP8DQROW,
    INT8WO,
    ROOT,
    Misbehave,
    Plug,
    Suite,
    workers_of,
)
from perf_tests.unit.harness.plugin.sessions import BUILD, ONLY_BF16, ONLY_INT8WO, THREE, screen, until

COMPILE = str(ROOT / "perf_tests" / "test_compile.py")

# Plan


def test_the_plan_is_printed_without_measuring(suite: Suite) -> None:
    result = suite.run("--collect-only", "-q", "--perf-plan", *THREE)

    assert result.ret == pytest.ExitCode.OK
    assert not suite.out.exists()
    result.stdout.re_match_lines(
        [
            r"expected CPU seconds \(host clock\) on cpu, 1 process per case",
            r"case +import +load +quantize +compile +generate +fidelity +inspect +total +basis",
            rf"{INT8WO} .* recorded",
            r"total [0-9.]+ s = [0-9.]+ min: 3 cases and 1 reference",
        ]
    )


def test_the_plan_of_another_machines_cases_is_printed_on_any_machine(suite: Suite) -> None:
    result = suite.run("--collect-only", "-q", "--perf-plan", f"--perf-case={FP8DQROW}")

    assert "on h100, 1 process per case" in screen(result)
    assert "flux1-dev-b1-bf16-regional (reference)" in screen(result)


# Budget


def test_a_case_that_the_budget_has_no_room_for_is_not_run_and_red(suite: Suite) -> None:
    result = suite.run("--perf-budget=1s", *THREE)  # by the fake worker's baselines, compiling takes 6 s

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    compiled = suite.case(COMPILED)
    assert (compiled.status, compiled.processes) == (Status.NOT_RUN, ())
    assert compiled.reason.startswith("expected to take ")
    assert f"NOT_RUN(budget): {compiled.reason}" in "".join(
        line for line in screen(result).splitlines() if "NOT_RUN" in line
    )
    assert result.parseoutcomes().get("failed", 0) == 0
    assert "no verdict" not in screen(result)


# Resuming


def test_a_run_that_was_killed_is_resumed_to_the_record_of_an_undisturbed_one(suite: Suite) -> None:
    assert suite.run(*THREE).ret == pytest.ExitCode.OK
    whole = suite.record()
    shutil.rmtree(suite.out)
    killed = suite.start(*THREE, f"--perf-inject=hang@{COMPILED}")
    log = suite.out / "logs" / f"{COMPILED}.0.log"
    assert until(log.exists, timeout_s=60)
    assert until(lambda: workers_of(suite.out) != [], timeout_s=20)
    killed.send_signal(signal.SIGKILL)
    assert until(lambda: killed.poll() is not None and not workers_of(suite.out), timeout_s=5)
    left = {run.id: run.processes for run in suite.record().cases}
    assert set(left) == {BF16, INT8WO}

    assert suite.run("--perf-resume", *THREE).ret == pytest.ExitCode.OK

    assert judged(suite.record()) == judged(whole)
    assert {run.id: run.processes for run in suite.record().cases if run.id in left} == left


def judged(record: RunRecord) -> list[tuple[str, Status, object]]:
    """The verdicts on each case, without host seconds, which differ between any two runs."""
    return [(run.id, run.status, [(v.metric, v.status) for v in run.verdicts]) for run in record.cases]


def test_a_finished_run_is_judged_again_and_not_measured(suite: Suite, misbehave: Misbehave) -> None:
    suite.run(ONLY_BF16, tests=(BUILD,))
    before = suite.case(BF16)
    misbehave("exit:load")
    result = suite.run("--perf-resume", ONLY_BF16, ONLY_INT8WO, tests=(BUILD,))

    assert suite.case(BF16).processes == before.processes
    began = suite.record().created_at
    assert (
        f"--perf-resume: 1 of 2 cases was not measured again, but kept from the session of {began} "
        f"on fake processor: {BF16}"
    ) in screen(result).splitlines()


def test_a_finished_run_of_another_stack_is_not_resumed(suite: Suite, misbehave: Misbehave) -> None:
    marker = suite.folder / "torch was upgraded"
    misbehave(f"new-torch:{marker}")
    suite.run(ONLY_BF16, tests=(BUILD,))
    before = (suite.out / "run.json").read_bytes()
    result = suite.run("--perf-resume", ONLY_BF16, tests=(BUILD,))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert (
        f"--perf-resume: {suite.out} cannot be continued here: stack changed during the run: "
        "torch 2.13.0 -> 2.14.0; use the interpreter that it was begun with"
    ) in screen(result)
    assert (suite.out / "run.json").read_bytes() == before
    assert suite.run("--perf-resume", ONLY_BF16, "--collect-only", tests=(BUILD,)).ret == pytest.ExitCode.OK


def test_a_finished_run_is_not_resumed_without_a_stack(suite: Suite, misbehave: Misbehave) -> None:
    suite.run(ONLY_BF16, tests=(BUILD,))
    misbehave("no-torch")
    result = suite.run("--perf-resume", ONLY_BF16, tests=(BUILD,))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "No module named 'torch'" in screen(result)


def test_an_earlier_case_that_is_not_selected_makes_nothing_red(suite: Suite) -> None:
    suite.run(ONLY_BF16, tests=(BUILD,))
    record = suite.record()
    red = msgspec.structs.replace(record.cases[0], status=Status.REGRESSED, reason="before")
    write_record(suite.out / "run.json", msgspec.structs.replace(record, cases=(red,)))

    assert suite.run("--perf-resume", ONLY_INT8WO, tests=(BUILD,)).ret == pytest.ExitCode.OK
    assert suite.case(BF16).status is Status.REGRESSED


def test_resuming_nothing_is_a_run_like_any_other(suite: Suite) -> None:
    assert suite.run("--perf-resume", ONLY_BF16).ret == pytest.ExitCode.OK
    assert suite.case(BF16).status is Status.PASS


def test_a_record_that_cannot_be_read_is_not_resumed(suite: Suite) -> None:
    suite.out.mkdir()
    (suite.out / "run.json").write_text('{"format_version": 1, "cas')
    result = suite.run("--perf-resume", ONLY_BF16, tests=(BUILD,))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "is truncated or not a run.json" in screen(result)
    assert (suite.out / "run.json").read_text() == '{"format_version": 1, "cas'


# Compile caches


def test_a_cold_compilation_is_judged_only_in_the_session_that_had_one(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    cache = suite.folder / "caches"
    arguments = ("-m", "h100", f"--perf-compile-cache={cache}", f"--perf-case={FP8DQROW}")

    def verdict(*more: str) -> tuple[Status, str]:
        first = screen(suite.run(*arguments, *more, tests=(COMPILE,)))
        assert f"compile caches from {cache}: compile_cold_s is judged where nothing was loaded" in first
        return next(
            (each.status, each.reason)
            for each in suite.case(FP8DQROW).verdicts
            if each.metric == "compile_cold_s"
        )

    assert verdict("--perf-processes=2")[0] is Status.PASS
    caches = [process.build.cache for process in suite.case(FP8DQROW).processes]
    assert [cache and cache.artifacts for cache in caches] == ["saved", "loaded"]
    assert verdict() == (Status.NOT_COMPARED, "every process loaded what it compiled or tuned from a file")
