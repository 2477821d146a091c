"""tools/attribute.py: exact metrics of four records, which need not be red."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from perf_tests.harness.runs.record import Run, Status
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.messages import FailureKind
from perf_tests.unit.builders import (
    MINI_INT8WO,
    make_build,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_run,
)
from perf_tests.unit.conftest import ROOT

main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "attribute.py"))["main"]
SQNR = "output_sqnr_db"
VERSIONS = {
    "good": ("2.13.0", "0.17.0"),
    "new_torch": ("2.14.1", "0.17.0"),
    "new_torchao": ("2.13.0", "0.18.0"),
    "new": ("2.14.1", "0.18.0"),
}


def run(corner: str, sqnr_db: float) -> Run:
    environment = make_environment(packages=dict(zip(("torch", "torchao"), VERSIONS[corner], strict=True)))
    process = make_process(environment=environment, build=make_build({SQNR: sqnr_db}))
    return make_run(MINI_INT8WO, processes=(process,))


def arguments(folder: Path, **runs: Run) -> list[str]:
    found = []
    for corner, each in runs.items():
        environment = make_environment(
            packages=dict(zip(("torch", "torchao"), VERSIONS[corner], strict=True))
        )
        write_record(folder / f"{corner}.json", make_record(each, references=(), environment=environment))
        found += [f"--{corner.replace('_', '-')}", str(folder / f"{corner}.json")]
    return found


def four(folder: Path, **changes: Run) -> list[str]:
    """34.75 dB with the good torchao, 34.60 with the new one, whichever torch."""
    runs = {corner: run(corner, 34.75 if VERSIONS[corner][1] == "0.17.0" else 34.60) for corner in VERSIONS}
    return arguments(folder, **{**runs, **changes})


def test_what_moves_with_torchao_is_torchaos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(four(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{MINI_INT8WO.id} {SQNR}: torchao 0.18.0: -0.15 dB of -0.15 dB; torch 2.14.1: +0 dB "
        "(good 34.75, new_torch 34.75, new_torchao 34.6, new 34.6)"
    ]


def test_a_stack_whose_build_is_unproven_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = make_failure(kind=FailureKind.UNPROVEN, message="0 of 47 modules are quantized")
    unproven = make_run(MINI_INT8WO, status=Status.UNPROVEN, reason=failure.message, failure=failure)
    assert main([*four(tmp_path, good=unproven), "--metric", SQNR]) == 0
    assert capsys.readouterr().out == (
        f"{MINI_INT8WO.id} {SQNR}: not attributed: the good stack cannot be measured: "
        "ERROR(unproven): 0 of 47 modules are quantized (good ERROR(unproven), new_torch not asked, "
        "new_torchao not asked, new 34.6)\n"
    )


def test_what_did_not_move_is_said_only_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = {corner: run(corner, 34.75) for corner in VERSIONS}
    assert main(arguments(tmp_path, **same)) == 0
    assert capsys.readouterr().out == ""
    assert main([*arguments(tmp_path, **same), "--metric", SQNR]) == 0
    assert "not reproduced" in capsys.readouterr().out


def test_a_metric_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*four(tmp_path), "--metric", "speed"]) == 2
    assert "--metric speed: there is no such metric" in capsys.readouterr().err
