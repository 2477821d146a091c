"""A session seen from outside: terminal, exit code, JUnit XML, run.json."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace

import pytest

from perf_tests.harness.processes.pipes import Pipes
from perf_tests.harness.runs import journal
from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import BF16, COMPILED, INT8WO, Suite, workers_of
from perf_tests.unit.forked_workers import FakeWorkers
from perf_tests.unit.harness.plugin.sessions import (
    BOTH,
    BUILD,
    LATENCY,
    ONLY_BF16,
    RATIO,
    THREE,
    screen,
    until,
)

# Green


def test_an_unchanged_tree_is_green_twice_and_ends_with_costs_and_table(suite: Suite) -> None:
    assert suite.run(*BOTH).ret == pytest.ExitCode.OK
    second = suite.run(*BOTH, "-m", "cpu")

    assert second.ret == pytest.ExitCode.OK
    assert [run.status for run in suite.record().cases] == [Status.PASS, Status.PASS]
    assert set(suite.statuses(INT8WO).values()) == {Status.PASS}
    assert len(list(suite.folder.glob("run.*"))) == 1  # the first run, moved aside
    second.stdout.re_match_lines(
        [
            r"CPU seconds .* by case and phase, all processes",
            r"case +import +load +quantize +compile +generate +fidelity +inspect +total",
            rf"{INT8WO} +(\d+\.\d +){{7}}\d+\.\d$",
            r"case +metric +baseline +now +change +limit +verdict",
            rf"{INT8WO} +compiled_graphs +0 +0 +- +0 +PASS",
            r" +time_ratio_vs_fp32 +0.3128 x +0.3128 x +\+0.00 % +0.5475 x +PASS",
            rf"provisional baselines \(fewer than 3 processes\): {BF16}, {INT8WO}",
        ]
    )


def test_two_processes_compile_cold_once_and_warm_once(suite: Suite) -> None:
    assert suite.run("--perf-processes=2", f"--perf-case={COMPILED}").ret == pytest.ExitCode.OK

    first, second = (process.build.values for process in suite.case(COMPILED).processes)
    assert (first["compile_cold_s"], "compile_warm_s" in first) == (6.0, False)
    assert (second["compile_warm_s"], "compile_cold_s" in second) == (1.5, False)


def test_a_comparison_on_one_machine_does_not_warn_of_another(
    suite: Suite, recwarn: pytest.WarningsRecorder
) -> None:
    suite.run(ONLY_BF16, "--benchmark-autosave", tests=(LATENCY,))
    compared = suite.run(ONLY_BF16, "--benchmark-compare", tests=(LATENCY,))

    compared.stdout.fnmatch_lines(["*(NOW)*"])
    assert not [each for each in recwarn if "machine_info is different" in str(each.message)]


def test_benchmark_json_holds_device_times_and_the_verdicts_of_the_case(suite: Suite) -> None:
    path = suite.folder / "out.json"
    suite.run(ONLY_BF16, f"--benchmark-json={path}", tests=(LATENCY,))

    written = json.loads(path.read_text())
    (benchmark,) = written["benchmarks"]
    assert benchmark["stats"]["data"] == [0.097] * 5
    assert benchmark["params"] == {"case": BF16}
    assert benchmark["extra_info"]["verdicts"][RATIO]["status"] == "PASS"
    assert benchmark["extra_info"]["status"] == "PASS"
    assert benchmark["extra_info"]["memory"][0]["load"]["rss_mib"] == 300.0
    assert written["machine_info"]["packages"]["torch"] == "2.13.0"


def test_collecting_measures_nothing_and_is_green(suite: Suite) -> None:
    result = suite.run("--collect-only", "-q", *BOTH)

    assert result.ret == pytest.ExitCode.OK
    assert not suite.out.exists()
    assert "no verdict" not in screen(result)


def test_the_last_failed_alone_owe_a_verdict(suite: Suite) -> None:
    suite.run(ONLY_BF16, "--perf-inject=latency:+150%", tests=(BUILD, LATENCY))

    again = suite.run(ONLY_BF16, "--lf", tests=(BUILD, LATENCY))
    assert again.ret == pytest.ExitCode.OK
    again.assert_outcomes(passed=1)


# Signs of life


def test_each_phase_is_a_line_in_place_of_the_letters_of_tests(suite: Suite) -> None:
    result = suite.run(*THREE)

    result.stdout.re_match_lines(
        [
            rf"\[0/3, .* left\]  {BF16}  import \d.* s",
            rf"\[0/3, .*\]  {BF16}  compile \d.* s",
            rf"\[0/3, .*\]  {BF16}  generate 6 times in \d.* s",
            rf"\[1/3, .* left\]  {INT8WO}  import \d.* s",
            rf"\[1/3, .* left\]  {INT8WO}  inspect, fidelity \d.* s",
        ]
    )
    assert not any(line.startswith("perf_tests/test_") for line in result.outlines)


def test_a_verbose_session_names_its_tests_between_the_phases(suite: Suite) -> None:
    result = suite.run(ONLY_BF16, "-v")

    result.stdout.re_match_lines(
        [rf".*\[0/1, .*\]  {BF16}  inspect, fidelity .*", rf".*test_build\.py::test_build\[{BF16}\] PASSED.*"]
    )


# What is red


def test_a_red_session_is_short_and_explains_each_cause_once(suite: Suite) -> None:
    result = suite.run(
        *BOTH, "--perf-table=red", "--perf-inject=latency:+150%", f"--perf-inject=oom@{INT8WO}"
    )

    printed = screen(result)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.re_match_lines(
        [
            r"case +verdict +change +metric .*",
            rf"{BF16} +\[2\] REGRESSED +\+.* % +{RATIO} .*",
            rf"{INT8WO} +\[1\] oom .*",
            r"\[1\] ERROR\(oom\): 1 case",
            rf"{INT8WO} on cpu: ERROR\(oom\) .*",
            rf"\[2\] {RATIO} REGRESSED: 1 case, \+.* %",
            r"2 cases: 2 red for 2 causes; raw samples: .*/run.json",
            r"=+ 2 failed, .*",
        ]
    )
    assert "FAILED " not in printed
    assert printed.count(f"{INT8WO} on cpu: ERROR(oom)") == 1


def test_a_failure_that_no_verdict_explains_is_printed_by_pytest(suite: Suite) -> None:
    def fail(item: pytest.Item) -> None:
        raise LookupError("a defect of the suite")

    failing = SimpleNamespace(pytest_runtest_call=fail)
    result = suite.run(ONLY_BF16, "--perf-table=red", tests=(BUILD,), plugins=(failing,))

    assert "LookupError: a defect of the suite" in str(result.stdout)


def test_the_page_of_a_job_on_github_says_the_same(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    page = suite.folder / "page.md"
    page.write_text("what an earlier step said\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    suite.run(ONLY_BF16, "--perf-inject=oom", tests=(BUILD,))

    text = page.read_text()
    assert text.startswith("what an earlier step said\n## Performance: 1 case: 1 red for 1 cause\n")
    assert "### [1] ERROR(oom): 1 case" in text


# Missing verdicts


def test_a_session_that_stops_at_the_first_failure_lists_the_missing_verdicts(suite: Suite) -> None:
    result = suite.run(*BOTH, f"--perf-inject=oom@{BF16}", "-x")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*selected, but no verdict was given*", f"{INT8WO}: build, *{RATIO}*"])
    assert f"{INT8WO}: build" in suite.record().missing


@pytest.mark.parametrize(
    ("option", "missing"),
    [("--benchmark-skip", f"{BF16}: {RATIO}"), ("--benchmark-only", f"{BF16}: build")],
)
def test_skipped_tests_leave_their_verdicts_missing(suite: Suite, option: str, missing: str) -> None:
    result = suite.run(ONLY_BF16, option, tests=(BUILD, LATENCY))

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert missing in suite.record().missing


# A run directory that cannot be written to


def test_a_run_directory_that_cannot_be_made_is_one_sentence(suite: Suite) -> None:
    suite.out.write_text("a file")
    suite.out /= "run"
    result = suite.run(ONLY_BF16, tests=(BUILD,))

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert screen(result).count(f"cannot write {suite.out}: Not a directory") == 1


@pytest.mark.parametrize("writes", [0, 1], ids=["when the case is measured", "when it is judged"])
def test_a_disk_that_fills_up_ends_the_session_with_one_sentence(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    space = iter(range(writes))

    def fsync(fd: int) -> None:
        if next(space, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append(descriptor: int, content: bytes) -> None:
        fsync(descriptor)  # verdicts are handed to the kernel alone, which may find the disk full, too

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(journal, "_write_all", append)
    result = suite.run(ONLY_BF16)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert screen(result).count(f"cannot write {suite.out}/run.json: No space left on device") == 1
    assert f"{RATIO}, transformer_bytes" in screen(result)  # among the missing verdicts


# Interruptions


# One that is killed: test_session_costs.py.
def test_a_session_that_is_cancelled_keeps_finished_cases_and_leaves_no_worker(suite: Suite) -> None:
    session = suite.start(*HANGING)
    assert until_it_hangs(suite, lambda: len(workers_of(suite.out)))

    session.send_signal(signal.SIGTERM)

    assert until(lambda: session.poll() is not None and not workers_of(suite.out), timeout_s=30)
    assert session.returncode == pytest.ExitCode.INTERRUPTED
    assert_interrupted(suite, (suite.folder / "session.log").read_text())


@pytest.fixture
def hear_ctrl_c() -> Iterator[None]:
    """A shell has the jobs in its background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hear_ctrl_c")
def test_ctrl_c_keeps_finished_cases_and_leaves_no_worker(suite: Suite, forked_workers: FakeWorkers) -> None:
    hung: list[bool] = []

    def press() -> None:
        hung.append(until_it_hangs(suite, lambda: forked_workers.alive))
        hung.append(until(asks_a_worker, timeout_s=20))
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    result = suite.run(*HANGING, no_reraise_ctrlc=True)
    pressing.join()

    assert hung == [True, True]
    assert forked_workers.alive == 0
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert_interrupted(suite, str(result.stdout))


HANGING = (*BOTH, f"--perf-inject=hang@{INT8WO}")


def asks_a_worker() -> bool:
    """Whether the main thread waits for an answer. In a fork that is no worker yet, Ctrl-C leaves a process
    that ends with this one, which here does not end."""
    frame: FrameType | None = sys._current_frames()[threading.main_thread().ident or 0]
    while frame is not None and frame.f_code is not Pipes.receive.__code__:
        frame = frame.f_back
    return frame is not None


def until_it_hangs(suite: Suite, workers: Callable[[], int]) -> bool:
    """Wait for the workers of the second case, which hangs once it is asked to generate, and of its twin."""
    # The cache is not made by the worker, so that the log says how far it is.
    log = suite.out / "logs" / f"{INT8WO}.0.log"
    return until(log.exists, timeout_s=60) and until(lambda: workers() == 2, timeout_s=20)


def assert_interrupted(suite: Suite, printed: str) -> None:
    assert [(run.id, run.status) for run in suite.record().cases] == [(BF16, Status.PASS)]
    assert not [missing for missing in suite.record().missing if missing.startswith(BF16)]
    assert f"1 of 2 cases are measured and kept in {suite.out}" in printed
    assert printed.partition("go on with: pytest ")[2].splitlines()[0].endswith("--perf-resume")
    assert f"{INT8WO}: build" in suite.record().missing
