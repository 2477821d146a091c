"""tools/history.py as a night and a person call it."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from perf_tests.harness.runs.record import Status
from perf_tests.harness.runs.record_file import write_record
from perf_tests.unit.builders import MINI_INT8WO, make_record, make_run, make_verdict
from perf_tests.unit.conftest import ROOT

main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "history.py"))["main"]
STEP = "denoise_step_ms"


@pytest.fixture
def history(tmp_path: Path) -> Path:
    return tmp_path / "history"


def add(tmp_path: Path, history: Path, day: int, status: Status, value: float, *more: str) -> int:
    verdict = make_verdict(STEP, status, measured=value)
    record = make_record(
        make_run(MINI_INT8WO, verdicts=(verdict,)), created_at=f"2026-11-{day:02}T01:00:00+00:00"
    )
    run = tmp_path / f"run{day}.json"
    write_record(run, record)
    return main(["append", str(run), "--history", str(history), "--run", f"{day}-1", *more])


def test_nights_are_added_shown_and_followed(
    tmp_path: Path, history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(tmp_path, history, 1, Status.PASS, 100.0) == 0
    assert add(tmp_path, history, 2, Status.REGRESSED, 104.0) == 0
    assert add(tmp_path, history, 3, Status.REGRESSED, 105.0, "--does-not-count", "by hand") == 0
    capsys.readouterr()

    assert main(["show", "--history", str(history)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "2026-11-01 1-1 cpu: 2 rows; torch 2.13.0 torchao 0.18.0"
    assert shown[2].endswith("; does not count: by hand")

    assert main(["series", MINI_INT8WO.id, STEP, "--history", str(history)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{STEP} of {MINI_INT8WO.id} on cpu",
        "  2026-11-01 1-1  100  PASS",
        "  2026-11-02 2-1  104  REGRESSED",
        "  2026-11-03 3-1  left out: the night does not count: by hand",
        "red since 2026-11-02 (1 night), last green 2026-11-01",
    ]


def test_what_cannot_be_done_is_one_sentence(
    tmp_path: Path, history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "--history", str(history)]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert add(tmp_path, history, 1, Status.PASS, 100.0) == 0
    assert add(tmp_path, history, 1, Status.PASS, 101.0) == 2
    assert "history is never rewritten" in capsys.readouterr().err
    assert main(["series", MINI_INT8WO.id, "denoise_step", "--history", str(history)]) == 2
    assert f"no night has denoise_step of {MINI_INT8WO.id}" in capsys.readouterr().err
    (tmp_path / "wheels.json").write_text("[]")
    assert add(tmp_path, history, 2, Status.PASS, 1.0, "--wheels", str(tmp_path / "wheels.json")) == 2
    assert "it holds a JSON object, package -> address" in capsys.readouterr().err
