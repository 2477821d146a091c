"""tools/report.py: a run in, its page out."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from perf_tests.harness.runs.record_file import write_record
from perf_tests.unit.builders import make_record
from perf_tests.unit.conftest import ROOT

report: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "report.py"))["main"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with a record of one case."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_record(folder / "run.json", make_record())
    return folder


def test_page_is_written_into_the_folder_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([str(run), "--baselines", str(run / "none")]) == 0

    assert capsys.readouterr().out == f"{run}/report.html\n"
    assert "flux-mini-b1-int8wo-eager" in (run / "report.html").read_text(encoding="utf-8")


def test_page_of_a_record_file_is_written_where_it_is_asked_for(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"

    assert report([str(run / "run.json"), "--baselines", str(ROOT / "baselines"), "--out", str(out)]) == 0

    assert out.is_file()
    assert not (run / "report.html").exists()


def test_record_that_cannot_be_read_is_refused_in_one_sentence(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "run.json").write_text("{")

    assert report([str(run)]) == 2

    assert capsys.readouterr().err.startswith(f"report: cannot read the run record {run}/run.json: ")
    assert not (run / "report.html").exists()


def test_baselines_that_cannot_be_trusted_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = run / "baselines" / "cpu" / "flux-mini.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{}")

    assert report([str(run), "--baselines", str(run / "baselines")]) == 2

    assert f"report: the baseline file {broken} " in capsys.readouterr().err


@pytest.mark.parametrize(("option", "begins"), [("--csv", "began,case,digest,"), ("--markdown", "**`")])
def test_numbers_are_printed_and_no_page_is_written(
    run: Path, option: str, begins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report([str(run), option, "--baselines", str(run / "none")]) == 0

    assert capsys.readouterr().out.startswith(begins)
    assert not (run / "report.html").exists()


def test_schema_needs_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["--json-schema"]) == 0

    assert '"$schema"' in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["run", "--csv", "--markdown"], ["run", "--csv", "--out", "x"]])
def test_what_cannot_be_meant_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        report(arguments)
