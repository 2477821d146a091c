"""What a session leaves in its run directory, seen from outside, and what a later one makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines.entry import Baselines
from perf_tests.harness.runs.record import Status
from perf_tests.unit.conftest import BF16, INT8WO, Misbehave, Suite, rebaseline
from perf_tests.unit.harness.plugin.sessions import BOTH, BUILD, ONLY_INT8WO, Edit, screen

INT8DQ = "flux-mini-b1-int8dq-eager"


def captured(suite: Suite) -> set[str]:
    """The kinds of files among the captures: `npy`, `png` and so on."""
    return {path.suffix[1:] for path in (suite.out / "captures").rglob("*") if path.is_file()}


def better_pictures(baselines: Baselines) -> Baselines:
    """The baselines, as if the pictures of int8wo had been 20 dB closer to bf16's."""
    entry = baselines.cases[INT8WO]
    closer = tuple(value + 20.0 for value in entry.metrics["psnr_db"])
    better = msgspec.structs.replace(entry, metrics={**entry.metrics, "psnr_db": closer})
    return msgspec.structs.replace(baselines, cases={**baselines.cases, INT8WO: better})


def test_a_green_session_leaves_pictures_and_acceptable_numbers(suite: Suite, tmp_path: Path) -> None:
    assert suite.run(*BOTH).ret == pytest.ExitCode.OK

    assert captured(suite) == {"png"}
    accept = ("apply", str(suite.out), "--only", "*", "--reason", "as measured", "--write")
    assert rebaseline([*accept, "--baselines", str(tmp_path / "new")]) == 0
    assert {path.stem for path in (tmp_path / "new/cpu/flux-mini").glob("*.json")} == {BF16, INT8WO}


def test_a_red_picture_is_drawn_before_the_arrays_go_and_found_when_resumed(
    suite: Suite, edit_baselines: Edit
) -> None:
    edit_baselines(better_pictures)
    first = screen(suite.run(*BOTH))
    assert suite.statuses(INT8WO)["psnr_db"] is Status.REGRESSED
    assert re.search(rf"  pictures   \S+/captures/{INT8WO}\.0\.\d\.\*\.png: changed most in the ", first)
    drawn = {path.name.split(".")[-2] for path in (suite.out / "captures").glob(f"{INT8WO}.0.*.*.png")}
    assert drawn == {"reference", "candidate", "heatmap"}
    assert captured(suite) == {"png"}

    again = screen(suite.run("--perf-resume", *BOTH))
    assert suite.statuses(INT8WO)["psnr_db"] is Status.REGRESSED
    assert re.search(rf"  pictures   \S+/captures/{INT8WO}\.0\.\d\.\*\.png: drawn by the session that", again)


def test_a_new_picture_is_drawn_for_those_who_are_to_accept_it(suite: Suite, tmp_path: Path) -> None:
    suite.baselines = tmp_path
    suite.run(*BOTH)

    assert suite.statuses(INT8WO)["psnr_db"] is Status.NO_BASELINE
    assert len(list((suite.out / "captures").glob(f"{INT8WO}.0.*.heatmap.png"))) == 1
    assert captured(suite) == {"png"}


def test_a_reference_whose_arrays_are_gone_is_measured_again_for_a_new_case(suite: Suite) -> None:
    suite.run(ONLY_INT8WO)
    before = suite.case(INT8WO)
    result = suite.run("--perf-resume", ONLY_INT8WO, f"--perf-case={INT8DQ}")

    said = "--perf-resume: measured again, since others are compared with their outputs, which are gone: "
    assert f"{said}{BF16}" in screen(result).splitlines()
    assert suite.case(INT8WO).processes == before.processes
    assert suite.case(INT8DQ).failure is None
    assert [run.id for run in suite.record().references].count(BF16) == 1
    assert captured(suite) == {"png"}


def test_a_reference_that_fails_when_measured_again_keeps_its_numbers(
    suite: Suite, misbehave: Misbehave
) -> None:
    suite.run(ONLY_INT8WO)
    (before,) = (run for run in suite.record().references if run.id == BF16)
    misbehave(f"exit:load@{BF16}")
    suite.run("--perf-resume", ONLY_INT8WO, f"--perf-case={INT8DQ}")

    assert before in suite.record().references
    assert suite.case(INT8WO).status is Status.PASS
    assert suite.statuses(INT8DQ)["psnr_db"] is Status.INCONCLUSIVE


def test_arrays_that_a_killed_session_left_are_removed_when_resumed(suite: Suite) -> None:
    suite.run(*BOTH)
    left = suite.out / suite.case(INT8WO).processes[0].captures[0].array
    left.touch()

    assert suite.run("--perf-resume", *BOTH).ret == pytest.ExitCode.OK
    assert not left.exists()


def test_a_session_says_which_earlier_runs_it_removed(suite: Suite) -> None:
    for day in range(1, 8):
        earlier = suite.folder / f"run.2026010{day}T000000Z"
        earlier.mkdir()
        (earlier / "run.json").write_text('{"format_version": 1}')
    result = suite.run(ONLY_INT8WO, tests=(BUILD,))

    assert (
        f"removed, so that 5 runs stay beside {suite.out}: run.20260102T000000Z, run.20260101T000000Z"
    ) in screen(result).splitlines()
    assert len(list(suite.folder.glob("run.*"))) == 5
