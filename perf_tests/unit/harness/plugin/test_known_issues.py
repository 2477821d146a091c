"""A known issue is red when it is fixed, and when its script fails; a night is red when a row has expired."""

from __future__ import annotations

import dataclasses
import datetime
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from perf_tests.harness.plugin.known_issues import Reproduction, expired, judge, watch
from perf_tests.protocol.errors import PerfError
from perf_tests.tables.known_issues import (
    DEVICE_MAP_CPU,
    FP8_ZERO_ROWS,
    FULL_COMPILE_ROUNDING,
    INT8WO_COMPILED,
    KNOWN_ISSUES,
    LORA_INT8DQ,
    TAYLORSEER_COGVIDEOX,
    KnownIssue,
)
from perf_tests.tables.platforms import CPU, H100
from perf_tests.unit.builders import for_each
from perf_tests.unit.conftest import ROOT, Suite
from perf_tests.unit.gone import is_gone_within_5_s

IN_TIME = datetime.date(2027, 5, 31)
TOO_LATE = datetime.date(2027, 6, 1)


@for_each(KNOWN_ISSUES)
def test_every_known_issue_has_its_script_an_owner_and_a_date(issue: KnownIssue) -> None:
    assert (ROOT / issue.script).is_file()
    assert issue.owner
    assert issue.link.startswith("https://")
    assert issue.expires <= datetime.date(2027, 12, 31)


def test_known_issues_are_watched_where_they_are_seen() -> None:
    seen = {platform.id: [i.id for i in KNOWN_ISSUES if platform in i.platforms] for platform in (CPU, H100)}
    assert seen["h100"] == [
        "int8wo-compiled-layer",
        "fp8-rows-of-zeros",
        "sparse-mm-host-memory",
        "int8-autotuner-file",
        "cudnn-attention-gradients",
    ]
    assert seen["cpu"] == [
        "full-compile-rounding",
        "attention-backend-reset",
        "block-offload-compiled",
        "save-quantized",
        "device-map-cpu",
        "layerwise-casting-quantized",
        "lora-int8dq",
        "taylorseer-cogvideox",
        "int8dq-shared-input",
        "package-cpu-probes",
    ]


@for_each(KNOWN_ISSUES)
def test_a_row_names_an_option_of_its_script(issue: KnownIssue) -> None:
    assert f'"--{issue.figure}", action="store_true"' in (ROOT / issue.script).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("issue", "found", "fixed", "says"),
    [
        (FULL_COMPILE_ROUNDING, 4.0, 0.0, "full-compile-rounding: 4 between the guidance that eager FLUX"),
        (LORA_INT8DQ, 12.0, 0.0, "lora-int8dq: 12 of 36 matrices of adapters over int8dq layers get no"),
        (DEVICE_MAP_CPU, 1.0, 0.0, "device-map-cpu: 1 of the linear layers (1: all) are loaded unquantized"),
        (TAYLORSEER_COGVIDEOX, 2.0, 0.0, "taylorseer-cogvideox: 2 of 2 attention layers of CogVideoX"),
    ],
    ids=lambda value: value.id if isinstance(value, KnownIssue) else "",
)
def test_a_known_issue_on_a_cpu_is_green_as_it_was_seen_and_red_fixed(
    issue: KnownIssue, found: float, fixed: float, says: str
) -> None:
    finding = judge(issue, Reproduction(figure=found))
    assert finding.as_expected
    assert finding.text.startswith(says)
    assert not judge(issue, Reproduction(figure=fixed)).as_expected


def test_a_known_issue_is_green_while_it_reproduces() -> None:
    finding = judge(INT8WO_COMPILED, Reproduction(figure=665.4))
    assert finding.as_expected
    assert "665 times as slow as it should be" in finding.text


def test_a_known_issue_is_red_once_it_is_fixed_and_says_what_to_do() -> None:
    finding = judge(INT8WO_COMPILED, Reproduction(figure=4.9))
    assert not finding.as_expected
    assert "4.9 times as slow" in finding.text
    assert "it is fixed: remove GPU_SETTINGS of int8wo" in finding.text


# Expired rows


list_known_issues = runpy.run_path(str(ROOT / "tools" / "known_issues.py"))["main"]


def test_a_row_expires_the_day_after_its_date() -> None:
    assert expired((INT8WO_COMPILED,), IN_TIME) == ()
    assert expired((INT8WO_COMPILED,), TOO_LATE) == (INT8WO_COMPILED,)


@pytest.mark.parametrize(
    ("arguments", "today", "code"),
    [
        pytest.param((), IN_TIME, 0, id="pull request, in time"),
        pytest.param((), TOO_LATE, 0, id="pull request, too late"),
        pytest.param(("--strict",), IN_TIME, 0, id="night, in time"),
        pytest.param(("--strict",), TOO_LATE, 1, id="night, too late"),
    ],
)
def test_an_expired_row_is_red_at_night_alone(
    arguments: tuple[str, ...], today: datetime.date, code: int
) -> None:
    assert list_known_issues(arguments, today) == code


@pytest.mark.parametrize(
    ("hosted", "arguments", "mark"),
    [("", (), "warning: "), ("true", (), "::warning::"), ("true", ("--strict",), "::error::")],
)
def test_an_expired_row_is_named_with_its_owner_where_it_is_seen(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hosted: str,
    arguments: tuple[str, ...],
    mark: str,
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", hosted)
    list_known_issues(arguments, TOO_LATE)
    said = capsys.readouterr().out
    assert (
        f"{mark}int8wo-compiled-layer: nobody has looked again since it expired on 2027-05-31. "
        "Owner: maintainers of this suite. Run tools/repro/int8wo_compile.py and read https://" in said
    )


def test_rows_in_time_are_listed_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    list_known_issues((), IN_TIME)
    said = capsys.readouterr().out
    assert "int8wo-compiled-layer on h100, h200, until 2027-05-31: https://github.com/pytorch/" in said
    assert "warning" not in said


# Slow scripts


def test_slow_scripts_run_with_the_cross_product_alone(suite: Suite) -> None:
    file = str(ROOT / "perf_tests" / "test_known_issues.py")
    main_job, cross_product, by_id = (
        str(suite.run("--collect-only", "-q", *arguments, tests=(file,)).stdout)
        for arguments in (
            ("-m", "cpu"),
            ("-m", "cpu and exhaustive"),
            ("--perf-case=full-compile-rounding",),
        )
    )
    assert "full-compile-rounding" not in main_job
    assert "test_known_issue[full-compile-rounding]" in cross_product
    assert "test_known_issue[full-compile-rounding]" in by_id


def test_a_night_does_not_watch_what_is_gone_from_the_torchao_that_it_installs(suite: Suite) -> None:
    file = str(ROOT / "perf_tests" / "test_known_issues.py")
    night, by_id = (
        str(suite.run("--collect-only", "-q", *arguments, tests=(file,)).stdout)
        for arguments in (("-m", "h100 and not unrecorded"), ("--perf-case=int8-autotuner-file",))
    )
    assert "test_known_issue[sparse-mm-host-memory]" in night
    assert "int8-autotuner-file" not in night
    assert "test_known_issue[int8-autotuner-file]" in by_id


# What scripts print


def _watch(tmp_path: Path, script: str, *, deadline_s: float = 30.0) -> str:
    file = tmp_path / "shows.py"
    file.write_text(script)
    issue = dataclasses.replace(INT8WO_COMPILED, script=str(file), deadline_s=deadline_s)
    return watch(issue, sys.executable, tmp_path / "logs" / "issue.log").text


def test_the_last_line_that_the_script_prints_is_its_answer(tmp_path: Path) -> None:
    text = _watch(
        tmp_path, "import sys; assert sys.argv[1:] == ['--slowdown']; print('x\\n{\"slowdown\": 12}')"
    )
    assert text.startswith("int8wo-compiled-layer: 12 times as slow")


def test_a_script_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(
        PerfError,
        match=r"(?s)shows int8wo-compiled-layer, ended with exit code 1; its last lines:.*no such GPU",
    ):
        _watch(tmp_path, "raise SystemExit('no such GPU')")


def test_the_last_words_of_a_script_tell_the_terminal_nothing(tmp_path: Path) -> None:
    with pytest.raises(PerfError) as caught:
        _watch(tmp_path, "raise SystemExit('\\x1b[2Jgone')")
    assert "\x1b" not in str(caught.value)
    assert r"\x1b[2Jgone" in str(caught.value)


def test_a_script_that_prints_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match="did not print its slowdown as JSON: "):
        _watch(tmp_path, "print('fast')")


def test_a_script_that_hangs_is_ended_at_its_deadline_with_what_it_started(tmp_path: Path) -> None:
    script = f"""
import os, subprocess, threading
compiler = subprocess.Popen(["sleep", "600"])
with open({str(tmp_path / "pids")!r} + ".new", "w") as pids:
    print(os.getpid(), compiler.pid, file=pids)
os.rename(pids.name, {str(tmp_path / "pids")!r})
threading.Event().wait()
"""
    with pytest.raises(PerfError, match=r"did not show int8wo-compiled-layer within 3 s"):
        _watch(tmp_path, script, deadline_s=3.0)
    pids = (tmp_path / "pids").read_text().split()
    assert [is_gone_within_5_s(int(pid)) for pid in pids] == [True, True]


def test_an_interpreter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match="could not be started"):
        watch(INT8WO_COMPILED, str(tmp_path / "python"), tmp_path / "issue.log")


def test_a_script_that_prints_another_figure_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match="did not print its slowdown as JSON: "):
        _watch(tmp_path, "print('{\"nan_rows\": 1}')")


def test_an_issue_is_told_in_the_words_of_its_row() -> None:
    finding = judge(FP8_ZERO_ROWS, Reproduction(figure=1.0))
    assert finding.as_expected
    assert finding.text.startswith(
        "fp8-rows-of-zeros: 1 of 2 rows are NaN, and one of them is zeros (https://"
    )
    assert "remove scheme_arguments of AURAFLOW" in judge(FP8_ZERO_ROWS, Reproduction(figure=0.0)).text


# tools/repro/int8_autotuner.py, as far as it works without a GPU

AUTOTUNER = runpy.run_path(str(ROOT / "tools" / "repro" / "int8_autotuner.py"))


def products(**changes: dict[str, object]) -> list[Any]:
    """The four variants as they were seen in source, with `changes` by name."""
    off = {"first_call_s": 0.1, "product_ms": 0.15, "runs_tuned_kernel": False, "sha256": "p"}
    of_file = {"shapes_in_file": 1, "file_sha256": "f"}
    seen: dict[str, dict[str, object]] = {
        "off": {**off, "shapes_in_file": 0, "file_sha256": None},
        "tuned": {**off, **of_file, "runs_tuned_kernel": True},
        "reused": {**off, **of_file, "runs_tuned_kernel": True},
        "path-alone": {**off, **of_file},
    }
    return [
        AUTOTUNER["Result"](variant=name, **{**each, **changes.get(name.replace("-", "_"), {})})
        for name, each in seen.items()
    ]


def test_a_stored_kernel_is_ignored_until_its_path_alone_leads_to_it_or_the_autotuner_is_gone() -> None:
    assert AUTOTUNER["ignored"](products()) == 1
    assert AUTOTUNER["ignored"](products(path_alone={"runs_tuned_kernel": True})) == 0
    assert AUTOTUNER["ignored"]([]) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"reused": {"runs_tuned_kernel": False}}, "no kernel scaled_matmul_kernel_with_block_pointers ran"),
        ({"reused": {"file_sha256": "g"}}, "or was written again"),
        ({"tuned": {"shapes_in_file": 2}}, "holds another number of shapes"),
        ({"path_alone": {"sha256": "q"}}, "the products differ"),
    ],
)
def test_an_autotuner_that_does_not_work_at_all_is_an_error(
    changes: dict[str, dict[str, object]], says: str
) -> None:
    with pytest.raises(RuntimeError, match=says):
        AUTOTUNER["ignored"](products(**changes))
