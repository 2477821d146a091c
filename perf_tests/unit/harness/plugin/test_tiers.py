"""What `smoke` and `unrecorded` select, with the committed baselines and with some that went missing."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from perf_tests.harness.baselines import files, register
from perf_tests.harness.plugin.selection import Forecaster, PlatformBaselines, Selection
from perf_tests.harness.runs.record import Status
from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.platforms import H100
from perf_tests.tables.tiers import SMOKE, why_unrecorded
from perf_tests.unit.conftest import CASES, FP8DQROW, ROOT, Plug, Suite, make_options
from perf_tests.unit.harness.plugin.sessions import BUILD, collected, screen

COMMITTED = ROOT / "baselines"
ON_H100 = [row.case(Weights.SYNTHETIC) for row in MATRIX if H100 in row.platforms]
NIGHT = ("-m", "h100 and not unrecorded")
FIRST_RECORDED = 31
"""How many rows of an H100 had a baseline when the register was begun."""


def test_the_smoke_rows_have_baselines_and_take_six_minutes_at_most() -> None:
    baselines = PlatformBaselines(COMMITTED)
    selection = Selection()
    for each in SMOKE:
        assert baselines.find(CASES[each.case], H100) is not None, each.case
        selection.add(CASES[each.case], H100)

    costs = Forecaster(make_options(baselines=COMMITTED), baselines).forecast(selection).costs

    assert math.fsum(seconds for cost in costs for seconds in cost.seconds.values()) <= 360.0


def test_every_row_of_an_h100_is_recorded_or_has_a_reason() -> None:
    baselines = PlatformBaselines(COMMITTED)
    recorded = {case.id for case in ON_H100 if baselines.find(case, H100) is not None}

    unexplained = {case.id for case in ON_H100 if not baselines.is_unrecorded(case.id, H100)} - recorded

    assert not unexplained, (
        "record them, or say why they never were, in UNRECORDED of perf_tests/tables/tiers.py"
    )


def test_a_row_that_ever_had_a_baseline_cannot_be_listed_as_never_recorded(tmp_path: Path) -> None:
    registered = register.read(COMMITTED, "h100")
    assert registered is not None
    assert len(registered) >= FIRST_RECORDED
    assert any(why_unrecorded(case_id, H100) for case_id in registered), "or this test shows nothing"
    # Nothing is left of the baselines but the register.
    (tmp_path / "h100").mkdir()
    shutil.copy(register.path_of(COMMITTED, "h100"), register.path_of(tmp_path, "h100"))

    baselines = PlatformBaselines(tmp_path)

    assert not [case_id for case_id in registered if baselines.is_unrecorded(case_id, H100)]


def test_without_a_register_no_row_counts_as_never_recorded(tmp_path: Path) -> None:
    baselines = PlatformBaselines(tmp_path)
    assert not [case.id for case in ON_H100 if baselines.is_unrecorded(case.id, H100)]


def _with_register(suite: Suite) -> Path:
    suite.baselines = Path(shutil.copytree(suite.baselines, suite.folder / "baselines"))
    cases = {case for each in files.load(suite.baselines, "h100").values() for case in each.cases}
    register.path_of(suite.baselines, "h100").write_text(register.dumps(cases))
    return suite.baselines


def test_a_night_takes_rows_that_were_ever_recorded_and_rows_without_a_reason_not_to_be(suite: Suite) -> None:
    recorded = register.read(_with_register(suite), "h100") or frozenset()
    without_reason = {case.id for case in ON_H100 if why_unrecorded(case.id, H100) is None}

    taken = collected(suite.run(*NIGHT, "--collect-only", "-q", tests=(BUILD,)))

    assert taken == recorded | without_reason
    assert FP8DQROW in recorded - without_reason
    assert 0 < len(taken) < len(ON_H100)


def test_a_night_is_red_for_a_row_that_lost_its_baseline(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    files.path_of(_with_register(suite), "h100", "flux1-dev", FP8DQROW).unlink()
    files.noise_path(suite.baselines, "h100").unlink(missing_ok=True)

    result = suite.run(*NIGHT, f"--perf-case={FP8DQROW}")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert suite.case(FP8DQROW).status is Status.NO_BASELINE


def test_a_night_says_how_many_rows_it_leaves_out(suite: Suite, plug_gpu: Plug) -> None:
    plug_gpu()
    _with_register(suite)

    cases = (f"--perf-case={FP8DQROW}", "--perf-case=sd3-medium-*")
    result = suite.run(*NIGHT, *cases, "--perf-table=red", tests=(BUILD,))

    assert "7 cases were left out because nobody has ever recorded them" in screen(result)


def test_smoke_selects_its_rows_and_no_others(suite: Suite) -> None:
    result = suite.run("-m", "h100 and smoke", "--collect-only", "-q", tests=(BUILD,))
    assert collected(result) == {each.case for each in SMOKE}


def test_a_register_that_cannot_be_read_is_a_usage_error(suite: Suite) -> None:
    register.path_of(_with_register(suite), "h100").write_bytes(b"\xff")

    result = suite.run(*NIGHT, "--collect-only", "-q", tests=(BUILD,))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "recorded.txt cannot be read" in screen(result)
