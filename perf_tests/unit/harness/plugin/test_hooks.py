"""A session seen from outside: terminal, exit code, JUnit XML, run.json."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.execution.gpu_lock import GpuLock
from perf_tests.harness.plugin import collection
from perf_tests.harness.runs.record import Status
from perf_tests.tables.known_issues import KNOWN_ISSUES
from perf_tests.tables.matrix import CPU_ROWS, MATRIX
from perf_tests.tables.platforms import CPU, Platform
from perf_tests.unit.conftest import (
    BF16,
    COMPILED,
    FP8DQROW,
    H100_CARD,
    INT8WO,
    ROOT,
    Misbehave,
    Plug,
    Suite,
    rebaseline,
    workers_of,
)

ONLY_BF16 = f"--perf-case={BF16}"
ONLY_INT8WO = f"--perf-case={INT8WO}"
BOTH = (ONLY_BF16, ONLY_INT8WO)
RATIO = "time_ratio_vs_fp32"
BUILD = str(ROOT / "perf_tests" / "test_build.py")

NAMES = len(MATRIX) + len(KNOWN_ISSUES)


def on_platform(monkeypatch: pytest.MonkeyPatch, platform: Platform) -> None:
    """The CPU cases, measured on a platform that differs from the table's."""
    rows = tuple(dataclasses.replace(row, platforms=(platform,)) for row in CPU_ROWS)
    monkeypatch.setattr(collection, "MATRIX", rows)


def screen(result: pytest.RunResult) -> str:
    """All it printed, which never holds a traceback of ours."""
    text = f"{result.stdout}\n{result.stderr}"
    assert "Traceback (most recent call last)" not in text
    assert "/harness/" not in text
    return text


def failed_tests(result: pytest.RunResult) -> list[str]:
    lines = (line for line in result.outlines if line.startswith("FAILED "))
    return [line.split()[1].rpartition("::")[2] for line in lines]


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
            r"case +import +load +quantize +compile +generate +fidelity +total",
            rf"{INT8WO} +\d.* 0.5 +0.2 ",
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
    suite.run(ONLY_BF16, "--benchmark-autosave")
    compared = suite.run(ONLY_BF16, "--benchmark-compare")

    compared.stdout.fnmatch_lines(["*(NOW)*"])
    assert not [each for each in recwarn if "machine_info is different" in str(each.message)]


def test_benchmark_json_holds_device_times_and_what_was_said_of_the_case(suite: Suite) -> None:
    path = suite.folder / "out.json"
    suite.run(ONLY_BF16, f"--benchmark-json={path}")

    written = json.loads(path.read_text())
    (benchmark,) = written["benchmarks"]
    assert benchmark["stats"]["data"] == [0.097] * 9
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
    suite.run(ONLY_BF16, "--perf-inject=latency:+150%")

    again = suite.run(ONLY_BF16, "--lf")
    assert again.ret == pytest.ExitCode.OK
    again.assert_outcomes(passed=1)


# Fire drills


def test_a_slower_case_fails_its_latency_alone(suite: Suite) -> None:
    result = suite.run(*BOTH, f"--perf-inject=latency:+150%@{INT8WO}")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert failed_tests(result) == [f"test_latency[{INT8WO}]"]
    red = {metric for metric, status in suite.statuses(INT8WO).items() if status is not Status.PASS}
    assert red == {RATIO}
    assert (suite.case(INT8WO).status, suite.case(BF16).status) == (Status.REGRESSED, Status.PASS)


def test_a_module_left_out_is_unproven_and_counted_but_not_timed(suite: Suite) -> None:
    result = suite.run(*BOTH, f"--perf-inject=drop-quantization:1@{INT8WO}")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert failed_tests(result) == [
        f"test_build[{INT8WO}]",
        f"test_fidelity[{INT8WO}]",
        f"test_quantization[{INT8WO}]",
    ]
    assert suite.case(INT8WO).status is Status.UNPROVEN
    statuses = suite.statuses(INT8WO)
    assert {metric for metric, status in statuses.items() if status is Status.REGRESSED} == {
        "quantized_modules",
        "weight_bytes",
        "layer_sqnr_db",
        "layer_gain",
        "layer_worst_row_sqnr_db",
    }
    assert not {RATIO, "model_memory_mib"} & set(statuses)
    shown = [line.split()[0] for line in result.outlines if line.startswith("test_latency[")]
    assert shown == [f"test_latency[{BF16}]"]  # an unproven build has no time


def test_a_layer_whose_scales_are_off_is_red_and_named(suite: Suite) -> None:
    result = suite.run(*BOTH, f"--perf-inject=scale:+1%@{INT8WO}")

    assert failed_tests(result) == [f"test_fidelity[{INT8WO}]"]
    assert suite.case(INT8WO).injected == ("scale:+1%",)
    statuses = suite.statuses(INT8WO)
    assert {metric for metric, status in statuses.items() if status is Status.REGRESSED} == {"layer_gain"}
    result.stdout.fnmatch_lines(["*transformer.transformer_blocks.12.attn.to_q 1 -> 1.01: 1 of 24 layers*"])


FAULTS = {
    BF16: ("hang", Status.TIMEOUT),  # also the reference of all others
    "flux-mini-b1-int8dq-eager": ("oom", Status.OOM),
    "flux-mini-b1-fp8wo-eager": ("nan", Status.NUMERICS),
    "flux-mini-b1-int8wo-eager-fused": ("crash", Status.CRASH),
}


def test_a_fault_is_red_once_and_in_its_case_only(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts = dataclasses.replace(CPU.timeouts, generate_s=0.7)
    on_platform(monkeypatch, dataclasses.replace(CPU, timeouts=timeouts))
    junit = suite.folder / "junit.xml"
    drills = [f"--perf-inject={fault}@{case_id}" for case_id, (fault, _) in FAULTS.items()]

    result = suite.run(
        *(f"--perf-case={case_id}" for case_id in (*FAULTS, INT8WO)), *drills, f"--junitxml={junit}"
    )

    builds = {f"test_build[{case_id}]" for case_id in FAULTS}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=4, skipped=24, passed=7)
    assert set(failed_tests(result)) == builds
    assert {
        test.get("name") for test in ET.parse(junit).iter("testcase") if len(test.findall("failure"))
    } == builds
    for case_id, (_, status) in FAULTS.items():
        assert (suite.case(case_id).status, suite.case(case_id).verdicts) == (status, ())
    assert suite.case(BF16).reason == "no answer to generate within 0.7 s"
    assert suite.case(INT8WO).status is Status.PASS
    assert set(suite.statuses(INT8WO).values()) == {Status.PASS}
    assert suite.record().missing == ()


@pytest.mark.parametrize("keyword", ["test_build", "test_latency"])
def test_one_test_alone_of_a_crashing_case_is_red(suite: Suite, misbehave: Misbehave, keyword: str) -> None:
    misbehave("segfault")
    assert suite.run(f"--perf-case={BF16}", "-k", keyword).ret == pytest.ExitCode.TESTS_FAILED


# Support


def test_a_scheme_that_is_required_fails_where_it_is_refused(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"refused-scheme@{INT8WO}")
    result = suite.run(ONLY_INT8WO)

    assert failed_tests(result) == [f"test_build[{INT8WO}]"]
    assert "this torchao has no config of that name" in screen(result)


def test_a_scheme_that_is_not_required_is_skipped_where_it_is_refused(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, misbehave: Misbehave
) -> None:
    on_platform(monkeypatch, dataclasses.replace(CPU, required_schemes=()))
    misbehave(f"refused-scheme@{INT8WO}")
    result = suite.run(ONLY_INT8WO)

    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(skipped=7)
    assert suite.case(INT8WO).status is Status.UNSUPPORTED


# Fidelity


def test_an_identical_picture_of_a_quantized_case_is_red(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"same-picture@{INT8WO}")
    result = suite.run(ONLY_INT8WO)

    assert failed_tests(result) == [f"test_fidelity[{INT8WO}]"]
    assert "the output is identical to the bf16 reference" in screen(result)


def test_without_a_reference_only_the_fidelity_is_inconclusive(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"segfault@{BF16}")
    result = suite.run(ONLY_INT8WO)

    assert failed_tests(result) == [f"test_fidelity[{INT8WO}]"]
    assert f"the bf16 reference {BF16} failed: worker was killed by SIGSEGV" in screen(result)
    inconclusive = {m for m, status in suite.statuses(INT8WO).items() if status is Status.INCONCLUSIVE}
    assert inconclusive == {"psnr_db", "ssim", "step_sqnr_db", "latents_sqnr_db"}
    assert suite.statuses(INT8WO)[RATIO] is Status.PASS


# Nothing planned ends in silence


def test_stopping_at_the_first_failure_lists_what_was_not_said(suite: Suite) -> None:
    result = suite.run(*BOTH, f"--perf-inject=oom@{BF16}", "-x")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*planned, but no verdict was given*", f"{INT8WO}: build, *{RATIO}*"])
    assert f"{INT8WO}: build" in suite.record().missing


@pytest.mark.parametrize(
    ("option", "unsaid"),
    [("--benchmark-skip", f"{BF16}: {RATIO}"), ("--benchmark-only", f"{BF16}: build")],
)
def test_skipped_tests_are_missed(suite: Suite, option: str, unsaid: str) -> None:
    result = suite.run(ONLY_BF16, option)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert unsaid in suite.record().missing


@pytest.mark.parametrize(
    ("switch", "failed", "says"),
    [
        ("missing-metric:weight_bytes", "test_quantization", "the worker reported no weight_bytes"),
        (
            "empty-reply",
            "test_build",
            "expected the answer 'generated' to generate, the worker sent an empty line",
        ),
        ("no-torch", "test_build", "could not start: ModuleNotFoundError: No module named 'torch'"),
    ],
)
def test_a_worker_that_answers_badly_is_red(
    suite: Suite, misbehave: Misbehave, switch: str, failed: str, says: str
) -> None:
    misbehave(switch)
    result = suite.run(ONLY_BF16)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert failed_tests(result) == [f"{failed}[{BF16}]"]
    assert says in screen(result)


# Baselines


def test_without_the_platforms_folder_every_test_says_how_to_record(suite: Suite) -> None:
    suite.baselines = suite.folder / "nowhere"
    result = suite.run(ONLY_BF16)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2, failed=5)  # what the tables imply needs no baseline
    record = f"python tools/rebaseline.py apply {suite.out} --only '{BF16}' --reason \"...\" --write"
    assert screen(result).count(record) == 5
    statuses = dict(suite.statuses(BF16))
    assert statuses.pop("anchor_sqnr_db") is Status.PASS
    assert set(statuses.values()) == {Status.NO_BASELINE}


@pytest.fixture
def edit_baselines(suite: Suite) -> Callable[[Callable[[str], str]], Path]:
    """Give the suite a copy of its baselines with another text in the file of flux-mini."""

    def edit(change: Callable[[str], str]) -> Path:
        suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
        file = suite.baselines / "cpu" / "flux-mini.json"
        file.write_text(change(file.read_text()))
        return file

    return edit


Edit = Callable[[Callable[[str], str]], Path]


def without_int8wo(text: str) -> str:
    content: dict[str, Any] = json.loads(text)
    del content["cases"][INT8WO]
    return json.dumps(content)


def test_a_deleted_entry_fails_its_case_alone(suite: Suite, edit_baselines: Edit) -> None:
    edit_baselines(without_int8wo)
    assert suite.run(*BOTH).ret == pytest.ExitCode.TESTS_FAILED
    assert (suite.case(INT8WO).status, suite.case(BF16).status) == (Status.NO_BASELINE, Status.PASS)


def test_a_truncated_baseline_file_stops_the_session_before_it_measures(
    suite: Suite, edit_baselines: Edit
) -> None:
    file = edit_baselines(lambda text: text[:1000])
    result = suite.run(*BOTH)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: the baseline file {file} is not JSON: *"])
    assert not suite.out.exists()
    assert "no verdict" not in screen(result)


def test_an_entry_of_a_renamed_case_is_found_by_the_check(
    edit_baselines: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    file = edit_baselines(lambda text: text.replace(INT8WO, "flux-mini-b1-int8-eager"))
    assert rebaseline(["check", "--baselines", str(file.parents[1])]) == 2
    assert "flux-mini-b1-int8-eager" in capsys.readouterr().err


# Selection


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--perf-case=flux-mini-b1-int8-eager",),
            f"int8-eager' matches none of the {NAMES} cases and known issues; nearest: {INT8WO}",
        ),
        (
            (*BOTH, "--perf-case=typo"),
            f"--perf-case 'typo' matches none of the {NAMES} cases and known issues",
        ),
        (
            (ONLY_INT8WO, "--perf-inject=cash"),
            "no fault 'cash'; there are latency, memory, drop-quantization",
        ),
        (
            (ONLY_INT8WO, "--perf-inject=oom@cogvideox*"),
            f"'oom@cogvideox*' matches none of the 1 selected cases; nearest: {INT8WO}",
        ),
        ((ONLY_INT8WO, "--perf-processes=0"), "--perf-processes 0: at least one process measures a case"),
        (
            (ONLY_INT8WO, "--perf-require-gpu"),
            "--perf-require-gpu: no selected case can run here; this machine has no",
        ),
        (("-m", "h100", "--perf-require-gpu"), "this machine has no NVIDIA GPU"),
    ],
)
def test_options_that_cannot_be_followed_are_one_sentence(
    suite: Suite, arguments: tuple[str, ...], says: str
) -> None:
    result = suite.run(*arguments, tests=(BUILD,))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in screen(result)
    assert "no verdict" not in screen(result)
    assert not suite.out.exists()


def test_tests_side_by_side_are_refused(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        parallel="def pytest_addoption(parser): parser.addoption('--jobs', dest='numprocesses', type=int)"
    )
    pytester.syspathinsert()
    result = suite.run("-p", "parallel", "--jobs=2", ONLY_INT8WO)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "they would share one GPU: run with -n 0" in screen(result)


def test_cases_of_a_gpu_are_skipped_without_one(suite: Suite) -> None:
    result = suite.run("-m", "h100", tests=(BUILD,))

    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes().keys() == {"skipped", "deselected"}
    assert "needs h100 or h200; this machine has no NVIDIA GPU" in screen(result)


def test_on_an_h100_its_cases_run_and_are_filed_under_it(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    result = suite.run("-m", "h100", f"--perf-case={FP8DQROW}", "--perf-require-gpu")

    assert result.ret == pytest.ExitCode.OK
    assert (suite.case(FP8DQROW).platform, suite.case(FP8DQROW).status) == ("h100", Status.PASS)
    assert suite.statuses(FP8DQROW)["speedup_vs_bf16"] is Status.PASS
    assert "GPU seconds" in screen(result)
    result.stdout.fnmatch_lines(
        [
            "3 noisy metrics at a level of 0.085 % each: unchanged code turns one of them red in at most "
            "0.255 % of the runs"
        ]
    )


def test_a_gpu_that_another_suite_measures_on_is_refused(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    with GpuLock(H100_CARD["uuid"]):
        result = suite.run(f"--perf-case={FP8DQROW}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert f"the GPU {H100_CARD['uuid']} was asked for, and process {os.getpid()}" in screen(result)
        assert not suite.out.exists()
        planned = suite.run(f"--perf-case={FP8DQROW}", "--collect-only")
        assert planned.ret == pytest.ExitCode.OK
        assert suite.run(ONLY_BF16, tests=(BUILD,)).ret == pytest.ExitCode.OK


def test_a_session_gives_its_gpu_back(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    suite.run(f"--perf-case={FP8DQROW}", tests=(BUILD,))
    with GpuLock(H100_CARD["uuid"]) as lock:
        assert lock.path.exists()


def test_on_an_h100_nothing_of_an_h200_is_selected(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    assert suite.run("-m", "h200", tests=(BUILD,)).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_gpu_of_no_platform_is_a_usage_error_for_gpu_cases_only(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu(name="NVIDIA A100-SXM4-80GB", capability=(8, 0), power_limit_w=400)
    result = suite.run("-m", "h100", tests=(BUILD,))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "unknown GPU 'NVIDIA A100-SXM4-80GB': no baselines can belong to it" in screen(result)
    assert suite.run("-m", "cpu", "--collect-only", tests=(BUILD,)).ret == pytest.ExitCode.OK


# A run directory that cannot be written


def test_a_run_directory_that_cannot_be_made_is_one_sentence(suite: Suite) -> None:
    suite.out.write_text("a file")
    suite.out /= "run"
    result = suite.run(ONLY_BF16)

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

    monkeypatch.setattr(os, "fsync", fsync)
    result = suite.run(ONLY_BF16)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert screen(result).count(f"cannot write {suite.out}/run.json: No space left on device") == 1
    assert f"{RATIO}, weight_bytes" in screen(result)  # among what was not said


# Interrupted


def until(reached: Callable[[], bool], *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name
)
def test_a_session_that_is_stopped_keeps_finished_cases_and_leaves_no_worker(
    suite: Suite, number: signal.Signals
) -> None:
    session = suite.start(*BOTH, f"--perf-inject=hang@{INT8WO}")
    # The cache is not made by the worker, so that the log says how far it is.
    log = suite.out / "logs" / f"{INT8WO}.0.log"
    assert until(log.exists, timeout_s=60)
    assert until(lambda: len(workers_of(suite.out)) == 2, timeout_s=20)  # the case's and its twin's

    session.send_signal(number)

    assert until(lambda: session.poll() is not None and not workers_of(suite.out), timeout_s=5)
    assert [run.id for run in suite.record().cases] == [BF16]
    if number is not signal.SIGKILL:
        assert session.returncode == pytest.ExitCode.INTERRUPTED
        assert f"{INT8WO}: build" in suite.record().missing
