"""What a session is to measure, what that is expected to cost, and names that match nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perf_tests.harness.planning.cost_model import CostBasis
from perf_tests.harness.plugin.options import parse_drill
from perf_tests.harness.plugin.selection import Forecaster, PlatformBaselines, Selection, check_globs, nearest
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.messages import Fault, Phase
from perf_tests.tables.cases import Weights
from perf_tests.tables.matrix import GPU_ROWS
from perf_tests.tables.platforms import CPU, H100
from perf_tests.unit.conftest import BF16, CASES, COMPILED, FP8DQROW, INT8WO, ROOT, make_options
from perf_tests.unit.harness.plugin.sessions import Open

TUNED = "flux1-dev-b1-int8dq-regional-tuned"
GPU_CASES = {case.id: case for case in (row.case(Weights.SYNTHETIC) for row in GPU_ROWS)}


def test_a_selection_is_planned_with_cases_that_are_only_verified_and_faults() -> None:
    selection = Selection()
    selection.add(CASES[BF16], CPU)
    selection.add(CASES[INT8WO], CPU, verified_only=True)
    options = make_options(drills=(parse_drill("oom@*int8wo*"),))

    first, second = selection.planned(options)

    assert (first.case.id, first.verified_only, first.injections) == (BF16, False, ())
    assert (second.case.id, second.verified_only) == (INT8WO, True)
    assert [injection.fault for injection in second.injections] == [Fault.OOM]


def test_a_selection_is_on_a_gpu_once_any_case_is() -> None:
    selection = Selection()
    selection.add(CASES[BF16], CPU)
    assert not selection.is_on_gpu
    selection.add(CASES[FP8DQROW], H100)
    assert selection.is_on_gpu


def test_a_drill_that_would_break_nothing_is_refused(open_session: Open) -> None:
    session = open_session(drills=(parse_drill("oom@flux-mini-b1-int8dq*"),))
    with pytest.raises(UsageError, match=rf"matches none of the 1 selected cases; nearest: {INT8WO}"):
        session.check()


def test_platform_baselines_are_read_once_and_found_by_case(recorded: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(recorded, tmp_path / "baselines"))
    baselines = PlatformBaselines(root)
    baselines.of(CPU)
    shutil.rmtree(root)

    found = baselines.find(CASES[INT8WO], CPU)
    assert found is not None
    assert found.provenance.reason == "first"
    assert baselines.find(CASES[FP8DQROW], H100) is None


def test_a_forecast_sums_the_recorded_seconds_of_the_selection(recorded: Path) -> None:
    forecaster = Forecaster(make_options(baselines=recorded), PlatformBaselines(recorded))
    selection = Selection()
    selection.add(CASES[COMPILED], CPU)
    (compiled,) = [row for row in forecaster.forecast(selection).costs if row.case.id == COMPILED]
    assert compiled.seconds[Phase.COMPILE] == 6.0


def test_what_an_earlier_run_chose_by_timing_is_not_expected_again_but_budgeted(tmp_path: Path) -> None:
    """It may be for another torch."""
    selection, baselines, compiling_s = Selection(), ROOT / "baselines", []
    selection.add(GPU_CASES[TUNED], H100)
    options = make_options(baselines=baselines, compile_cache=tmp_path, budget_s=155.0)
    for folder in (tmp_path, tmp_path / "tuned"):
        folder.mkdir(exist_ok=True)
        (folder / "a1b2").touch()
        forecaster = Forecaster(options, PlatformBaselines(baselines))
        costs = {cost.case.id: cost for cost in forecaster.forecast(selection).costs}
        compiling_s.append(costs[TUNED].seconds[Phase.COMPILE])
        assert forecaster.budget(selection).refusal(TUNED) is not None
    assert compiling_s[0] - compiling_s[1] == pytest.approx(50.0)


def test_what_one_gpu_lacks_is_planned_from_another_but_a_cpu_from_none(tmp_path: Path) -> None:
    baselines, case = tmp_path / "baselines", GPU_CASES["flux1-dev-b1-bf16-regional"]
    shutil.copytree(ROOT / "baselines", baselines)
    (baselines / "h100" / case.build.pipeline.id / f"{case.id}.json").unlink()
    selection = Selection()
    selection.add(case, H100)
    selection.add(CASES[BF16], CPU)

    costs = (
        Forecaster(make_options(baselines=baselines), PlatformBaselines(baselines)).forecast(selection).costs
    )

    basis = {cost.case.id: cost.basis for cost in costs}
    assert basis[case.id] is CostBasis.ELSEWHERE
    assert basis[BF16] is CostBasis.RECORDED


def test_a_budget_is_unlimited_without_the_option(recorded: Path) -> None:
    forecaster = Forecaster(make_options(baselines=recorded), PlatformBaselines(recorded))
    assert forecaster.budget(Selection()).refusal(BF16) is None


def test_each_glob_must_select_a_case() -> None:
    with pytest.raises(
        UsageError, match=r"--perf-case '\*int4\*' matches none of the 2 cases and known issues; nearest: "
    ):
        check_globs(("*bf16*", "*int4*"), (BF16, INT8WO))


def test_nearest_names_what_looks_like_it_or_else_the_first() -> None:
    assert nearest("int8-eager", ["int8wo-eager", "bf16-full"]) == ["int8wo-eager"]
    assert nearest("???", ["a", "b", "c", "d"]) == ["a", "b", "c"]
