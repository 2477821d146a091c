"""Two runs as one page."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from perf_tests.harness.compare import run_pairs
from perf_tests.harness.page import compared
from perf_tests.harness.page.view import Page
from perf_tests.harness.rebaseline.candidates import RunFile
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.reports import Capture
from perf_tests.unit.builders import (
    MINI_BF16,
    make_build,
    make_environment,
    make_process,
    make_record,
    make_run,
)
from perf_tests.unit.conftest import ROOT
from perf_tests.unit.harness.page.documents import Document

compare: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "compare.py"))["main"]


def record(weight_bytes: float, torch: str, *, image: str = "") -> RunRecord:
    captures = (Capture(array=image, sha256="", image=image),) if image else ()
    expected = {"output_sqnr_db": 38.0, "distinct_prompt_embeddings": 4.0}
    process = make_process(
        build=make_build({**expected, "weight_bytes": weight_bytes}),
        environment=make_environment(packages={"torch": torch}),
        captures=captures,
    )
    return make_record(make_run(processes=(process,)))


def page(base: RunRecord, candidate: RunRecord) -> Page:
    before = RunFile(path=Path("a"), record=base, sha256="a" * 64)
    now = RunFile(path=Path("b"), record=candidate, sha256="b" * 64)
    comparison = run_pairs.compare(before, candidate, {"cpu": {}}, 5)
    return compared.page(compared.sources_of(before, now, comparison), comparison)


def test_page_says_what_is_worse_than_the_base_and_which_stack_differs() -> None:
    made = page(record(1000.0, "2.14.0"), record(1100.0, "2.15.0"))

    assert made.sentence == (
        "weight_bytes of flux-mini-b1-int8wo-eager: REGRESSED by +10.00 % (1,100 B, limit 1,000 B); "
        "since the base of 2026-08-02: torch 2.14.0 -> 2.15.0."
    )
    assert not made.is_green
    (case,) = made.cases
    assert case.failure.startswith("weight_bytes REGRESSED: ")
    assert "rebaseline" not in case.failure
    assert case.steps is not None
    names = [label.text for label in case.steps.labels if label.anchor == "middle"]
    assert names == ["base 1", "candidate 1"]
    assert ("torch", "2.14.0", "2.15.0", "differs") in made.tables[0].rows
    assert ("card", "Example CPU", "Example CPU", "") in made.tables[0].rows


def test_page_of_the_same_run_twice_is_green_and_shows_compared_rows_only() -> None:
    made = page(record(1000.0, "2.14.0"), record(1000.0, "2.14.0"))

    assert made.sentence == "No worse than the base: 1 case compared."
    assert made.is_green
    assert [cell.id for row in made.matrix[0].rows for cells in row.cells for cell in cells] == [
        "flux-mini-b1-int8wo-eager"
    ]


def test_what_was_not_compared_is_said() -> None:
    further = make_run(MINI_BF16)
    more = make_record(*record(1000.0, "2.14.0").cases, further)

    made = page(record(1000.0, "2.14.0"), more)

    assert made.remarks == ("not compared: flux-mini-b1-bf16-eager: only the candidate has it",)
    assert made.sentence == "It cannot be told: what could not be compared is listed below."
    assert page(make_record(further), record(1.0, "2.14.0")).sentence == (
        "Nothing was compared: the two runs have no measured case in common."
    )


def test_tool_writes_the_page_with_pictures_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, weight_bytes in (("a", 1000.0), ("b", 1100.0)):
        (tmp_path / name).mkdir()
        write_record(tmp_path / name / "run.json", record(weight_bytes, "2.14.0", image="picture.png"))
        Image.new("RGB", (8, 8)).save(tmp_path / name / "picture.png")
    out = tmp_path / "page.html"

    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--html", str(out)]
    assert compare([*arguments, "--baselines", str(tmp_path)]) == 1

    assert capsys.readouterr().out.endswith(f"page: {out}\n")
    images = list(Document(out.read_text(encoding="utf-8")).root.all("img"))
    assert [image.attributes["alt"] for image in images] == [
        "base of flux-mini-b1-int8wo-eager",
        "candidate of flux-mini-b1-int8wo-eager",
    ]


def test_page_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path / "run.json", record(1000.0, "2.14.0"))
    out = tmp_path / "none" / "page.html"

    assert compare([str(tmp_path), str(tmp_path), "--html", str(out), "--baselines", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"compare: cannot write {out}: ")
