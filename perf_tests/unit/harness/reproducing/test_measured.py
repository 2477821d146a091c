"""`tools/reproduce.py` writes what a run has measured, or says in a sentence why it cannot."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.reproducing import measured
from perf_tests.harness.runs.record import Run, RunRecord, Status
from perf_tests.harness.runs.record_file import RECORD, write_record
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    FLUX_FP8,
    MINI_INT8WO,
    make_environment,
    make_process,
    make_record,
    make_run,
    make_verdict,
)
from perf_tests.unit.conftest import CASES, ROOT, TRAINED

main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "reproduce.py"))["main"]


def stored(folder: Path, *runs: Run) -> Path:
    record: RunRecord = make_record(*runs)
    write_record(folder / RECORD, record)
    return folder


def test_a_script_says_what_was_measured_of_the_row(tmp_path: Path) -> None:
    red = make_verdict("denoise_step_ms", Status.REGRESSED, reason="3.1 % slower, limit 1.5 %")
    run = make_run(FLUX_FP8, H100, measured={"denoise_step_ms": 46.8312}, verdicts=(red,))
    assert list(measured.about(run)) == [
        "Measured: 46.83 ms per step on NVIDIA H100 80GB HBM3 with torch 2.13.0, torchao 0.18.0.",
        "denoise_step_ms REGRESSED: 3.1 % slower, limit 1.5 %",
    ]
    path = tmp_path / "step.py"
    assert main([str(stored(tmp_path, run)), FLUX_FP8.id, f"--out={path}"]) == 0
    text = path.read_text()
    assert "Measured: 46.83 ms per step on NVIDIA H100 80GB HBM3" in text
    assert 'DEVICE = "cuda"' in text


def test_a_drill_is_told_of() -> None:
    assert list(measured.about(make_run(injected=("latency:+3%",))))[-1] == (
        "That session injected latency:+3%, which this script does not."
    )


def test_variables_that_decide_numbers_are_told() -> None:
    environment = make_environment(variables={"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"})
    run = make_run(processes=(make_process(environment=environment),))
    assert list(measured.about(run))[1] == (
        "There, what the environment says was OMP_NUM_THREADS=2, OMP_WAIT_POLICY=passive. Set it alike: this "
        "script does not."
    )


def test_a_platform_that_is_gone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = msgspec.structs.replace(make_run(), platform="v100")
    assert main([str(stored(tmp_path, run)), run.id, f"--out={tmp_path / 'step.py'}"]) == 2
    assert "there is no platform v100 any more: use the commit of the run" in capsys.readouterr().err


def test_a_case_that_nobody_measured_is_refused_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(stored(tmp_path, make_run())), f"{MINI_INT8WO.id}s"]) == 2
    assert f"has no case {MINI_INT8WO.id}s among its 2; nearest: {MINI_INT8WO.id}" in capsys.readouterr().err


def test_a_row_that_has_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(digest="0" * 64)
    assert main([str(stored(tmp_path, run)), run.id, f"--out={tmp_path / 'step.py'}"]) == 2
    assert "the row has changed since it was measured (digest 000000000000, now" in capsys.readouterr().err
    assert not (tmp_path / "step.py").exists()


def test_a_row_without_a_script_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(CASES[TRAINED])
    assert main([str(stored(tmp_path, run)), run.id]) == 2
    assert f"{TRAINED}: no script of its own: it trains adapters" in capsys.readouterr().err
