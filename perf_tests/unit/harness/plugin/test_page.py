"""The page that a session writes at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.harness.page import report_file
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.runs.record import Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.unit.conftest import CASES, COMPILED, INT8WO, Suite
from perf_tests.unit.harness.plugin.sessions import BUILD, ONLY_INT8WO, QUICK, Open, screen


def test_session_writes_a_page_and_says_where(suite: Suite) -> None:
    result = suite.run(ONLY_INT8WO, tests=(BUILD,))

    assert result.ret == pytest.ExitCode.OK
    assert f"raw samples: {suite.out}/run.json; page: {suite.out}/report.html" in screen(result)
    assert INT8WO in (suite.out / "report.html").read_text(encoding="utf-8")


def test_page_of_a_red_case_has_the_failure_text(suite: Suite) -> None:
    suite.run(ONLY_INT8WO, "--perf-inject=oom", tests=(BUILD,))

    page = (suite.out / "report.html").read_text(encoding="utf-8")
    assert "ERROR(oom) while the worker was in phase" in page
    assert "a fire drill: faults were injected into 1 of 1 cases" in page


def test_page_that_cannot_be_made_costs_neither_the_night_nor_its_record(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: PageSources) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(report_file, "page_of", broken)

    result = suite.run(ONLY_INT8WO, tests=(BUILD,))

    assert result.ret == pytest.ExitCode.OK
    said = screen(result)
    assert "no page was written: MemoryError: no room" in said
    assert "report.html" not in said
    assert not (suite.out / "report.html").exists()
    assert read_record(suite.out).cases[0].id == INT8WO


def test_interrupted_session_has_a_page_too(open_session: Open, tmp_path: Path) -> None:
    session = open_session()
    session.select(CASES[COMPILED], QUICK, None)
    session.measure(INT8WO)

    session.close(cut_short=True)

    assert session.without_page is None
    assert "no verdict was given" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_resumed_session_removes_the_page_of_what_was_measured_before(
    open_session: Open, tmp_path: Path
) -> None:
    session = open_session()
    session.measure(INT8WO)
    session.close(cut_short=True)
    page = tmp_path / "run" / "report.html"
    assert page.exists()

    resumed = open_session(resume=True)
    assert resumed.measure(INT8WO).status is Status.INCONCLUSIVE

    assert not page.exists()
    resumed.close(cut_short=False)
    assert page.exists()
