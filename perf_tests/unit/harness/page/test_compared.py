"""Two runs as one page."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from perf_tests.harness.compare import run_pairs
from perf_tests.harness.page import compared, report_file
from perf_tests.harness.page.view import Page
from perf_tests.harness.rebaseline.candidates import RunFile
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.reports import Capture
from perf_tests.tables import cases
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_environment,
    make_process,
    make_record,
    make_run,
)
from perf_tests.unit.conftest import CASES, INT8WO, ROOT, Suite
from perf_tests.unit.harness.page.documents import Document
from perf_tests.unit.harness.plugin.sessions import BUILD, ONLY_INT8WO

compare: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "compare.py"))["main"]


VIDEO = CASES["cogvideox-2b-mini-b1-int8wo-eager"]
FIDELITY = str(ROOT / "perf_tests" / "test_fidelity.py")


def record(weight_bytes: float, torch: str, *, image: str = "", case: cases.Case = MINI_INT8WO) -> RunRecord:
    captures = (Capture(array=image, sha256="", image=image),) if image else ()
    expected = {"output_sqnr_db": 38.0, "distinct_prompt_embeddings": 4.0}
    process = make_process(
        build=make_build({**expected, "weight_bytes": weight_bytes}),
        environment=make_environment(packages={"torch": torch}),
        captures=captures,
    )
    return make_record(make_run(case, processes=(process,)))


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


def shown(out: Path, case: str = "flux-mini-b1-int8wo-eager") -> tuple[list[str], str]:
    """The captions of the pictures of a case, and what is said about them."""
    page = Document(out.read_text(encoding="utf-8")).root
    (found,) = (each for each in page.all("details") if each.attributes.get("data-id") == case)
    captions = [
        each.words()
        for each in found.all("figcaption")
        if each.parent is not None and list(each.parent.all("img"))
    ]
    (said, *_) = [*(each.text for each in found.all("p") if each.text.startswith("Pictures: ")), ""]
    return captions, said


def compared_runs(tmp_path: Path, *pictures: Image.Image | None, case: cases.Case = MINI_INT8WO) -> Path:
    """The page about two runs of a case which gave these two pictures."""
    for name, weight_bytes, picture in (("a", 1000.0, pictures[0]), ("b", 1100.0, pictures[1])):
        (tmp_path / name).mkdir(exist_ok=True)
        made = record(weight_bytes, "2.14.0", image="picture.png", case=case)
        write_record(tmp_path / name / "run.json", made)
        if picture is not None:
            picture.save(tmp_path / name / "picture.png")
    out = tmp_path / "page.html"
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--html", str(out)]
    assert compare([*arguments, "--baselines", str(tmp_path)]) == 1
    return out


def test_pictures_of_both_runs_stand_beside_the_map_of_their_difference(tmp_path: Path) -> None:
    dark, light = Image.new("RGB", (16, 16), (10, 20, 30)), Image.new("RGB", (16, 16), (10, 20, 30))
    light.paste((40, 50, 60), (0, 0, 8, 8))

    captions, said = shown(compared_runs(tmp_path, dark, light))

    assert captions[:2] == ["base", "candidate"]
    # A quarter differs by 30 / 255.
    assert captions[2].startswith("where they differ, 8.5 times amplified: PSNR 24.61 dB, SSIM 0.")
    assert captions[2].endswith(", changed most in the upper left quarter of the picture: 18.6 dB")
    assert said == ""


def test_pictures_that_are_the_same_are_said_to_be(tmp_path: Path) -> None:
    picture = Image.new("RGB", (16, 16), (10, 20, 30))

    assert shown(compared_runs(tmp_path, picture, picture)) == (
        [],
        "Pictures: the picture that both runs kept is the same.",
    )


@pytest.mark.parametrize(
    ("is_there", "captions", "said"),
    [
        ((True, False), ["base"], "Pictures: the candidate kept none."),
        ((False, True), ["candidate"], "Pictures: the base kept none."),
        ((False, False), [], "Pictures: neither run kept any."),
    ],
)
def test_run_that_kept_no_picture_is_named(
    tmp_path: Path, is_there: tuple[bool, bool], captions: list[str], said: str
) -> None:
    picture = Image.new("RGB", (16, 16), (10, 20, 30))
    kept = [picture if each else None for each in is_there]

    assert shown(compared_runs(tmp_path, *kept)) == (captions, said)


def test_frame_of_a_film_is_named(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 16), (level, 20, 30)) for level in (10, 50)]
    out = compared_runs(tmp_path, *pictures, case=VIDEO)

    captions, said = shown(out, VIDEO.id)

    assert len(captions) == 3
    assert said == "Pictures: of the film, frame 0 is shown."


def test_films_that_the_runs_drew_follow_the_pictures(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 16), (level, 20, 30)) for level in (10, 50)]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "picture.png.mp4").write_bytes(b"film")
    page = Document(compared_runs(tmp_path, *pictures, case=VIDEO).read_text(encoding="utf-8")).root

    (film,) = page.all("video")
    assert film.attributes["src"] == "data:video/mp4;base64,ZmlsbQ=="
    assert film.attributes["aria-label"] == (
        "film of the candidate: its reference, candidate, where these two differ"
    )


def test_pictures_that_do_not_fit_are_named_and_those_that_are_the_same_still_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_file, "LIMIT_BYTES", 0)
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    picture, other = (Image.new("RGB", (16, 16), (level, 20, 30)) for level in (10, 50))

    assert shown(compared_runs(tmp_path / "other", picture, other)) == (
        [],
        "Pictures: no room is left here: they are in captures of the run directory.",
    )
    assert "that both runs kept is the same" in shown(compared_runs(tmp_path / "same", picture, picture))[1]


def test_sessions_of_two_stacks_show_what_changed_in_their_pictures(
    suite: Suite, misbehave: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two sessions with fake workers, one of which gives the picture of bf16 for every prompt."""
    suite.run(ONLY_INT8WO, tests=(BUILD, FIDELITY))
    base = suite.out.rename(suite.folder / "base")
    misbehave(f"same-picture@{INT8WO}")
    suite.run(ONLY_INT8WO, tests=(BUILD, FIDELITY))
    out = suite.folder / "page.html"
    capsys.readouterr()

    compare([str(base), str(suite.out), "--html", str(out), "--baselines", str(suite.baselines)])

    captions, said = shown(out)
    assert captions[:2] == ["base", "candidate"]
    assert "dB, SSIM 0.9" in captions[2]
    assert said == "Pictures: 4 of 4 prompts give another picture; shown is prompt 1."
    tables = Document(out.read_text(encoding="utf-8")).root.all("table")
    captioned = {next(table.all("caption")).text: table for table in tables if list(table.all("caption"))}
    assert "4 of 4" in captioned["Pictures that differ"].words()


def test_page_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path / "run.json", record(1000.0, "2.14.0"))
    out = tmp_path / "none" / "page.html"

    assert compare([str(tmp_path), str(tmp_path), "--html", str(out), "--baselines", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"compare: cannot write {out}: ")
