"""The verdicts of tests, seen from outside: exactly which tests are red, and what they say."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET

import msgspec
import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.baselines.entry import Baselines
from perf_tests.harness.runs.record import Status
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.platforms import CPU
from perf_tests.unit.conftest import BF16, INT8WO, Misbehave, Suite, rebaseline
from perf_tests.unit.harness.plugin.sessions import (
    BOTH,
    ONLY_BF16,
    ONLY_INT8WO,
    RATIO,
    Edit,
    failed_tests,
    on_platform,
    screen,
)

# Fire drills


def test_a_slower_case_fails_its_latency_alone(suite: Suite) -> None:
    result = suite.run(*BOTH, f"--perf-inject=latency:+150%@{INT8WO}")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert failed_tests(result) == [f"test_latency[{INT8WO}]"]
    red = {metric for metric, status in suite.statuses(INT8WO).items() if status is not Status.PASS}
    assert red == {RATIO}
    assert (suite.case(INT8WO).status, suite.case(BF16).status) == (Status.REGRESSED, Status.PASS)


def test_a_module_left_unquantized_is_unproven_and_counted_but_not_timed(suite: Suite) -> None:
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
        "transformer_bytes",
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
    BF16: ("hang", Status.TIMEOUT),  # also the reference of all the others
    "flux-mini-b1-int8dq-eager": ("oom", Status.OOM),
    "flux-mini-b1-fp8wo-eager": ("nan", Status.NUMERICS),
    "flux-mini-b1-int8wo-eager-fused": ("crash", Status.CRASH),
}


def test_a_fault_is_red_once_and_in_its_case_only(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts = dataclasses.replace(CPU.timeouts, generate_s=2.0)
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
    assert suite.case(BF16).reason.startswith("no answer to generate within 2 s")
    assert suite.case(INT8WO).status is Status.PASS
    assert set(suite.statuses(INT8WO).values()) == {Status.PASS}
    assert suite.record().missing == ()


@pytest.mark.parametrize("keyword", ["test_build", "test_latency"])
def test_a_crashing_case_is_red_in_any_one_of_its_tests(
    suite: Suite, misbehave: Misbehave, keyword: str
) -> None:
    misbehave("segfault")
    assert suite.run(f"--perf-case={BF16}", "-k", keyword).ret == pytest.ExitCode.TESTS_FAILED


# Support


def test_a_required_scheme_fails_where_it_is_refused(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"refused-scheme@{INT8WO}")
    result = suite.run(ONLY_INT8WO)

    assert failed_tests(result) == [f"test_build[{INT8WO}]"]
    assert "this torchao has no config of that name" in screen(result)


def test_an_optional_scheme_is_skipped_where_it_is_refused(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, misbehave: Misbehave, edit_baselines: Edit
) -> None:
    on_platform(monkeypatch, dataclasses.replace(CPU, required_schemes=()))
    edit_baselines(without_int8wo)  # an accepted baseline says that it was supported
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


def test_fidelity_alone_is_inconclusive_without_a_reference(suite: Suite, misbehave: Misbehave) -> None:
    misbehave(f"segfault@{BF16}")
    result = suite.run(ONLY_INT8WO)

    assert failed_tests(result) == [f"test_fidelity[{INT8WO}]"]
    assert f"the bf16 reference {BF16} failed: worker was killed by SIGSEGV" in screen(result)
    inconclusive = {m for m, status in suite.statuses(INT8WO).items() if status is Status.INCONCLUSIVE}
    assert inconclusive == {"psnr_db", "ssim", "step_sqnr_db", "latents_sqnr_db"}
    assert suite.statuses(INT8WO)[RATIO] is Status.PASS


# Workers that answer badly


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


def test_every_test_says_how_to_record_where_the_platform_has_no_folder(suite: Suite) -> None:
    suite.baselines = suite.folder / "empty"
    suite.baselines.mkdir()
    result = suite.run(ONLY_BF16)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2, failed=5)  # what the tables imply needs no baseline
    record = f"python tools/rebaseline.py apply {suite.out} --only '{BF16}' --reason \"...\" --write"
    assert screen(result).count(record) == 5
    statuses = dict(suite.statuses(BF16))
    needing = {name for name, status in statuses.items() if status is Status.NO_BASELINE}
    implied = {name for name, status in statuses.items() if status is Status.PASS}
    assert needing | implied == statuses.keys()
    assert {"weight_bytes", "operators_per_step"} <= needing
    assert {name for name in implied if METRIC_BY_NAME[name].has_baseline} == set()


def without_int8wo(baselines: Baselines) -> Baselines:
    others = {case: entry for case, entry in baselines.cases.items() if case != INT8WO}
    return msgspec.structs.replace(baselines, cases=others)


def test_a_deleted_entry_fails_its_case_alone(suite: Suite, edit_baselines: Edit) -> None:
    edit_baselines(without_int8wo)
    assert suite.run(*BOTH).ret == pytest.ExitCode.TESTS_FAILED
    assert (suite.case(INT8WO).status, suite.case(BF16).status) == (Status.NO_BASELINE, Status.PASS)


def test_a_truncated_baseline_file_stops_the_session_before_it_measures(
    suite: Suite, edit_baselines: Edit
) -> None:
    file = files.path_of(edit_baselines(lambda same: same), "cpu", "flux-mini", INT8WO)
    file.write_text(file.read_text()[:1000])
    result = suite.run(*BOTH)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: the baseline file {file} is not JSON: *"])
    assert not suite.out.exists()
    assert "no verdict" not in screen(result)


def test_an_entry_of_a_renamed_case_is_found_by_the_check(
    edit_baselines: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = {BF16: BF16, INT8WO: "flux-mini-b1-int8-eager"}
    root = edit_baselines(
        lambda before: msgspec.structs.replace(
            before, cases={name: before.cases[old] for old, name in renamed.items()}
        )
    )
    assert rebaseline(["check", "--baselines", str(root)]) == 2
    assert "flux-mini-b1-int8-eager is not a case of flux-mini in the matrix" in capsys.readouterr().err


def test_a_number_that_was_edited_stops_the_session_before_it_measures(
    suite: Suite, edit_baselines: Edit
) -> None:
    file = files.path_of(edit_baselines(lambda same: same), "cpu", "flux-mini", INT8WO)
    edited = re.sub(r'("weight_bytes": )[\d.]+', r"\g<1>1.0", file.read_text())
    file.write_text(edited)
    result = suite.run(*BOTH)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: the baseline file {file} was edited: *"])
    assert not suite.out.exists()
