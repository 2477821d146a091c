"""report/plan.py: a forecast in, lines out."""

from __future__ import annotations

from typing import Any

from perf_tests.harness.planning.cost_model import CostBasis
from perf_tests.harness.planning.schedule import Accuracy, CaseCost, Forecast
from perf_tests.harness.report.plan import accuracy, table
from perf_tests.protocol.messages import Phase
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import CPU, H100
from perf_tests.unit.builders import FLUX_FP8, MINI_BF16, MINI_INT8WO

IMPORT, LOAD, COMPILE, GENERATE, SWITCH_WORKLOAD = (
    Phase.IMPORT,
    Phase.LOAD,
    Phase.COMPILE,
    Phase.GENERATE,
    Phase.SWITCH_WORKLOAD,
)


def _cost(case: Case, seconds: dict[Phase, float], **changes: Any) -> CaseCost:
    default: dict[str, Any] = {
        "case": case,
        "platform": H100,
        "processes": 1,
        "implicit": False,
        "seconds": seconds,
        "missing": (),
        "basis": CostBasis.RECORDED,
        "source": case.id,
    }
    return CaseCost(**{**default, **changes})


def _accuracy(case: str, expected_s: float | None, spent_s: float, *, implicit: bool = False) -> Accuracy:
    return Accuracy(case=case, implicit=implicit, expected_s=expected_s, spent_s=spent_s)


def test_the_table_shows_phases_in_order_the_basis_of_each_case_and_the_total() -> None:
    costs = (
        _cost(MINI_BF16, {GENERATE: 1200.25, IMPORT: 2.0, LOAD: 12.0}, implicit=True),
        _cost(MINI_INT8WO, {SWITCH_WORKLOAD: 1.0, GENERATE: 30.0}, basis=CostBasis.ESTIMATED, source="one"),
        _cost(FLUX_FP8, {LOAD: 4.0, GENERATE: 6.0}, basis=CostBasis.GUESSED, source="another"),
    )
    assert table(Forecast(processes=3, costs=costs)) == [
        "expected GPU seconds (host clock while a worker holds the GPU) on h100, 3 processes per case",
        "case                                 import  load  generate  turn    total  basis",
        "flux-mini-b1-bf16-eager (reference)     2.0  12.0   1,200.2     -  1,214.2  recorded",
        "flux-mini-b1-int8wo-eager                 -     -      30.0   1.0     31.0  estimated from one",
        "flux1-dev-b1-fp8dqrow-regional            -   4.0       6.0     -     10.0  guessed from another",
        "total                                   2.0  16.0   1,236.2   1.0  1,255.2",
        "total 1,255.2 s = 20.9 min: 2 cases and 1 reference",
    ]


def test_unknown_seconds_are_marked_and_listed_rather_than_zero() -> None:
    costs = (
        _cost(MINI_BF16, {GENERATE: 30.0}, missing=(IMPORT, LOAD)),
        _cost(MINI_INT8WO, {GENERATE: 30.0}, missing=(LOAD,)),
        _cost(FLUX_FP8, {}, missing=(IMPORT, LOAD, GENERATE), basis=CostBasis.UNKNOWN, source=None),
    )
    assert table(Forecast(processes=1, costs=costs)) == [
        "expected GPU seconds (host clock while a worker holds the GPU) on h100, 1 process per case",
        "case                            import  load  generate   total  basis",
        "flux-mini-b1-bf16-eager              ?     ?      30.0  30.0+?  recorded",
        "flux-mini-b1-int8wo-eager            -     ?      30.0  30.0+?  recorded",
        "flux1-dev-b1-fp8dqrow-regional       ?     ?         ?       ?  unknown",
        "total                                ?     ?    60.0+?  60.0+?",
        "not in the total, because the platform has no baselines: flux1-dev-b1-fp8dqrow-regional",
        "not in the total, because no baseline has it: import of 1 case",
        "not in the total, because no baseline has it: load of 2 cases",
        "total 60.0 s = 1.0 min, without what is not known: 3 cases",
    ]


def test_a_platform_without_baselines_has_no_total() -> None:
    unknown = _cost(FLUX_FP8, {}, missing=(LOAD, GENERATE), basis=CostBasis.UNKNOWN, source=None)
    assert table(Forecast(processes=1, costs=(unknown,)))[1:] == [
        "case                            load  generate  total  basis",
        "flux1-dev-b1-fp8dqrow-regional     ?         ?      ?  unknown",
        "total                              ?         ?      ?",
        "not in the total, because the platform has no baselines: flux1-dev-b1-fp8dqrow-regional",
        "total not known: 1 case",
    ]


def test_each_platform_has_a_table_and_a_total_of_its_own() -> None:
    costs = (_cost(MINI_BF16, {LOAD: 6.0}, platform=CPU), _cost(FLUX_FP8, {LOAD: 12.0}))
    lines = table(Forecast(processes=1, costs=costs))
    assert [line for line in lines if line.startswith(("expected", "total "))] == [
        "expected CPU seconds (host clock) on cpu, 1 process per case",
        "total                     6.0    6.0",
        "total 6.0 s = 0.1 min: 1 case",
        "expected GPU seconds (host clock while a worker holds the GPU) on h100, 1 process per case",
        "total                           12.0   12.0",
        "total 12.0 s = 0.2 min: 1 case",
    ]


def test_a_forecast_without_cases_has_no_table() -> None:
    assert table(Forecast(processes=1, costs=())) == []


def test_the_accuracy_shows_expected_spent_and_their_ratio_and_that_of_the_sums() -> None:
    rows = (_accuracy("a", 50.0, 40.0), _accuracy("b", 1000.0, 2000.0, implicit=True))
    assert accuracy(rows) == [
        "expected and spent seconds, all processes",
        "case           expected    spent  ratio",
        "a                  50.0     40.0   1.25",
        "b (reference)   1,000.0  2,000.0   0.50",
        "total           1,050.0  2,040.0   0.51",
    ]


def test_cases_without_an_expectation_are_not_summed() -> None:
    assert accuracy((_accuracy("a", 50.0, 40.0), _accuracy("b", None, 60.0)))[2:] == [
        "a          50.0   40.0   1.25",
        "b             ?   60.0      ?",
        "total      50.0   40.0   1.25",
    ]
    assert accuracy((_accuracy("b", None, 60.0),))[-1] == "total         ?   60.0      ?"


def test_an_accuracy_without_cases_is_empty() -> None:
    assert accuracy(()) == []
