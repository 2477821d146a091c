from __future__ import annotations

import pytest

from perf_tests.harness.execution.planned import Planned, PlannedCases, blank
from perf_tests.harness.runs.record import Progress, Status
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.messages import Fault, Injection
from perf_tests.unit.harness.execution.campaigns import (
    AUTOQUANT,
    BF16,
    BF16_4,
    CASES,
    CPU_ALONE,
    GPU,
    INT8WO,
    INT8WO_4,
    larger,
)

SLOWER = Injection(fault=Fault.LATENCY, amount=50.0)


def planned(case_id: str, *injections: Injection, verified_only: bool = False) -> Planned:
    return Planned(CASES[case_id], CPU_ALONE, injections, verified_only)


def ids(cases: list[Planned]) -> list[str]:
    return [each.case.id for each in cases]


def test_a_reference_is_the_same_workload_in_bf16_without_faults() -> None:
    assert planned(INT8WO, SLOWER).reference == planned(BF16)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(planned(BF16), id="reference"),
        pytest.param(planned(INT8WO, verified_only=True), id="verified_only"),
    ],
)
def test_a_reference_is_not_needed_by(case: Planned) -> None:
    assert case.reference is None


@pytest.mark.parametrize(
    ("other", "shares"),
    [
        pytest.param(planned(INT8WO_4), True, id="another workload"),
        pytest.param(planned(INT8WO_4, SLOWER), False, id="with a fault"),
        pytest.param(planned(BF16), False, id="another build"),
        pytest.param(Planned(CASES[INT8WO_4], GPU), False, id="on another platform"),
    ],
)
def test_a_worker_is_shared_by_workloads_of_one_build(other: Planned, shares: bool) -> None:
    assert planned(INT8WO).shares_worker_with(other) is shares
    assert other.shares_worker_with(planned(INT8WO)) is shares


def test_a_worker_is_not_shared_by_workloads_of_a_search() -> None:
    large = Planned(larger(AUTOQUANT, height=256, width=256), CPU_ALONE)
    assert not planned(AUTOQUANT).shares_worker_with(large)


def test_a_blank_run_is_planned_and_names_its_faults() -> None:
    run = blank(planned(INT8WO, SLOWER))
    assert (run.status, run.reason, run.progress) == (
        Status.INCONCLUSIVE,
        "not measured",
        Progress.PLANNED,
    )
    assert (run.reference, run.injected) == (BF16, ("latency:+50%",))


def test_cases_keep_their_order() -> None:
    cases = PlannedCases([planned(INT8WO_4), planned(BF16), planned(INT8WO)])
    assert list(cases.blanks) == [INT8WO_4, BF16, INT8WO]


def test_references_that_nobody_selected_share_workers_with_selected_cases_of_their_build() -> None:
    cases = PlannedCases([planned(INT8WO), planned(INT8WO_4), planned(BF16_4)])
    selected, implicit = cases.sharing(planned(BF16))
    assert (ids(selected), ids(implicit)) == ([BF16_4], [BF16])


@pytest.mark.parametrize(("injections", "serves"), [((), True), ((SLOWER,), False)])
def test_a_selected_case_is_a_reference_only_without_faults(
    injections: tuple[Injection, ...], serves: bool
) -> None:
    cases = PlannedCases([planned(BF16, *injections), planned(INT8WO)])
    assert cases.has_reference(CASES[BF16]) is serves
    assert ids(cases.sharing(planned(BF16))[1]) == ([] if serves else [BF16])


def test_an_unknown_case_is_refused_with_similar_ids() -> None:
    with pytest.raises(UsageError, match=r"no case 'nothing' among the 1 .* nearest: none is similar"):
        PlannedCases([planned(BF16)])["nothing"]
