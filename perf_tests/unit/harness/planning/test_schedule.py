"""planning/schedule.py: selected cases in, expected seconds out; then those compared with a record."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from perf_tests.harness.planning.cost_model import CostBasis
from perf_tests.harness.planning.relatives import KnownCosts, RecordedCase
from perf_tests.harness.planning.schedule import CaseCost, Forecast, accuracy, forecast, shard_items
from perf_tests.harness.runs.record import Run
from perf_tests.protocol.messages import Phase
from perf_tests.tables import platforms
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.flux import FLUX1_DEV
from perf_tests.tables.pipelines.llama import LLAMA_7B
from perf_tests.tables.platforms import CPU, Platform, WorkerStart
from perf_tests.tables.recipes import MODEL_OFFLOAD, CompileMode
from perf_tests.tables.schemes.rows import FP8DQ, FP8DQROW, INT8WO
from perf_tests.tables.training.rows import ON_HOPPER
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_case,
    make_entry,
    make_failure,
    make_process,
    make_record,
    make_run,
)

BF16 = make_case(FLUX1_DEV, compile=CompileMode.REGIONAL)
FP8 = make_case(FLUX1_DEV, scheme=FP8DQROW, compile=CompileMode.REGIONAL)
OTHER_FP8 = make_case(FLUX1_DEV, scheme=FP8DQ, compile=CompileMode.REGIONAL)
SPENT = {
    "import": 2.0,
    "load": 12.0,
    "quantize": 0.5,
    "compile": 20.0,
    "generate": 16.0,
    "turn": 1.0,
    "fidelity": 0.0,
    "inspect": 0.0,
}


def _of_batch(case: Case, size: int) -> Case:
    return dataclasses.replace(case, workload=dataclasses.replace(case.workload, batch_size=size))


H100 = dataclasses.replace(
    platforms.H100, cold_start_s=0.0, process_noise=None, samples=3, worker_start=WorkerStart.FORKED
)


def _known(*cases: Case, platform: Platform = H100, **spent: float) -> dict[str, KnownCosts]:
    """All `cases` recorded with the seconds above, changed by `spent`; warm compilations take 4 s."""
    metrics = {"encode_ms": [50.0], "first_step_ms": [50.0], "denoise_step_ms": [50.0], "decode_ms": [50.0]}
    entries = {case.id: make_entry({**metrics, "compile_warm_s": [4.0]}, case=case) for case in cases}
    records = tuple(
        RecordedCase(case=case, entry=msgspec.structs.replace(entries[case.id], seconds={**SPENT, **spent}))
        for case in cases
    )
    return {platform.id: KnownCosts(records=records)}


def _total_s(cost: CaseCost) -> float:
    return sum(cost.seconds.values())


def _shown(expected: Forecast) -> list[tuple[str, bool]]:
    return [(cost.case.id, cost.implicit) for cost in expected.costs]


# Costs


def test_the_first_case_of_a_worker_pays_for_the_build_and_the_others_for_a_switch() -> None:
    large = _of_batch(BF16, 4)
    first, second = forecast(
        [(large, H100), (BF16, H100)], _known(BF16, large, fidelity=7.0, inspect=3.0), 1
    ).costs
    assert (first.case, second.case) == (BF16, large)
    measured = {"compile": 20.0, "generate": 16.0, "fidelity": 7.0, "inspect": 3.0}
    assert first.seconds == pytest.approx({"import": 2.0, "load": 12.0, "quantize": 0.5, **measured})
    assert second.seconds == pytest.approx({"turn": 1.0, **measured})
    assert first.missing == second.missing == ()


def test_the_first_worker_of_a_session_reads_from_disk() -> None:
    cold = dataclasses.replace(H100, cold_start_s=16.0)
    other = _known(BF16, FP8)
    first, second = forecast([(BF16, cold), (FP8, cold)], other, 1).costs
    assert (first.seconds[Phase.LOAD], second.seconds[Phase.LOAD]) == (28.0, 12.0)


def test_each_process_pays_for_the_build_and_all_but_the_first_compile_warm() -> None:
    (cost,) = forecast([(BF16, H100)], _known(BF16), 3).costs
    paid = {"import": 6.0, "load": 36.0, "quantize": 1.5, "generate": 48.0, "fidelity": 0.0, "inspect": 0.0}
    assert cost.seconds == pytest.approx({**paid, "compile": 20.0 + 2 * 4.0})
    assert cost.processes == 3


def test_a_reference_that_nobody_selected_is_in_the_forecast_once_as_implicit() -> None:
    expected = forecast([(FP8, H100), (OTHER_FP8, H100)], _known(BF16, FP8, OTHER_FP8), 1)
    assert _shown(expected) == [(BF16.id, True), (FP8.id, False), (OTHER_FP8.id, False)]
    assert expected.total_s == pytest.approx(3 * 50.5)


def test_a_selected_reference_is_paid_for_once() -> None:
    expected = forecast([(FP8, H100), (BF16, H100)], _known(BF16, FP8), 1)
    assert _shown(expected) == [(BF16.id, False), (FP8.id, False)]


def test_a_case_that_is_only_verified_generates_twice_and_has_no_reference() -> None:
    (cost,) = forecast([(FP8, H100)], _known(BF16, FP8), 1, verified_only={FP8.id}).costs
    assert cost.seconds[Phase.GENERATE] == pytest.approx(16.0 / 4 * 2)
    assert not {Phase.FIDELITY, Phase.INSPECT} & cost.seconds.keys()


def test_a_case_whose_pictures_are_its_built_twins_is_inspected_but_not_compared() -> None:
    offloaded = BF16.with_recipe(dataclasses.replace(BF16.build.recipe, offload=MODEL_OFFLOAD))
    *_, cost = forecast([(offloaded, H100)], _known(BF16, offloaded, inspect=60.0), 1).costs
    assert cost.seconds[Phase.INSPECT] == 60.0
    assert Phase.FIDELITY not in {*cost.seconds, *cost.missing}


def test_a_case_that_trains_is_compared_with_its_steps_in_bf16() -> None:
    trained = BF16.with_recipe(dataclasses.replace(BF16.build.recipe, training=ON_HOPPER))
    (cost,) = forecast([(trained, H100)], _known(trained, fidelity=9.8), 1).costs
    assert cost.seconds[Phase.FIDELITY] == 9.8


def test_a_case_that_shows_nothing_is_inspected_but_not_compared() -> None:
    llama = make_case(LLAMA_7B, scheme=INT8WO)
    *_, cost = forecast([(llama, H100)], _known(BF16, llama), 1).costs
    assert Phase.INSPECT in cost.seconds
    assert Phase.FIDELITY not in {*cost.seconds, *cost.missing}


def test_a_phase_that_nobody_recorded_is_missing_and_not_zero() -> None:
    entry = make_entry({name: [50.0] for name in ("encode_ms", "first_step_ms", "decode_ms")}, case=BF16)
    known = {H100.id: KnownCosts(records=(RecordedCase(case=BF16, entry=entry),))}
    first, second = forecast([(BF16, H100), (_of_batch(BF16, 4), H100)], known, 2).costs
    assert first.missing == (Phase.IMPORT, Phase.LOAD, Phase.QUANTIZE, Phase.COMPILE, Phase.FIDELITY)
    assert second.missing == (Phase.SWITCH_WORKLOAD, Phase.COMPILE, Phase.FIDELITY)
    assert set(first.seconds) == {Phase.GENERATE, Phase.INSPECT}


def test_every_phase_is_missing_on_a_platform_without_records() -> None:
    expected = forecast([(BF16, H100)], {}, 1)
    (cost,) = expected.costs
    assert (cost.basis, cost.source, dict(cost.seconds)) == (CostBasis.UNKNOWN, None, {})
    assert cost.missing == (
        *(Phase.IMPORT, Phase.LOAD, Phase.QUANTIZE),
        *(Phase.COMPILE, Phase.GENERATE, Phase.FIDELITY, Phase.INSPECT),
    )
    assert expected.total_s == 0.0


# The fp32 twin


def test_one_twin_serves_all_processes_of_all_cases_of_its_pipeline() -> None:
    expected = forecast([(MINI_INT8WO, CPU)], _known(MINI_BF16, MINI_INT8WO, platform=CPU, generate=6.0), 2)
    twin = MINI_INT8WO.fp32_twin
    assert not {Phase.FIDELITY, Phase.INSPECT} & expected.costs[0].seconds.keys()
    assert _shown(expected) == [(twin.id, True), (MINI_BF16.id, True), (MINI_INT8WO.id, False)]
    # A second a generation: one warm-up, then five along with each of two processes of the case.
    assert expected.costs[0].seconds == pytest.approx(
        {"import": 2.0, "load": 12.0, "quantize": 0.5, "compile": 20.0, "generate": 1 + 5 * 2}
    )
    assert expected.costs[0].processes == 1


def test_a_case_that_is_only_verified_has_no_twin() -> None:
    expected = forecast(
        [(MINI_INT8WO, CPU)], _known(MINI_INT8WO, platform=CPU), 1, verified_only={MINI_INT8WO.id}
    )
    assert _shown(expected) == [(MINI_INT8WO.id, False)]


# Items of a shard


def test_a_shard_item_is_a_build_with_what_a_session_of_it_alone_would_take() -> None:
    large = _of_batch(FP8, 4)
    found = shard_items(
        [(FP8, H100), (BF16, H100), (large, H100)], _known(BF16, FP8, large, _of_batch(BF16, 4)), 1
    )
    assert [item.cases for item in found] == [(BF16.id,), (FP8.id, large.id)]
    # Build and two workloads, 50.5 + 37 s, of the case and of its reference.
    assert [item.seconds for item in found] == pytest.approx([50.5, 2 * 87.5])


def test_a_build_that_nobody_selected_is_not_a_shard_item() -> None:
    assert [item.cases for item in shard_items([(FP8, H100)], _known(FP8), 1)] == [(FP8.id,)]


def test_a_shard_item_of_an_unknown_platform_takes_unknown_seconds() -> None:
    assert [item.seconds for item in shard_items([(FP8, H100)], {}, 1)] == [None]


# Expected and spent


def _ran(case: Case, *seconds: float) -> Run:
    processes = tuple(
        make_process(build=make_build(seconds={"load": each / 2, "generate": each / 2})) for each in seconds
    )
    return make_run(case, H100, processes=processes)


def test_each_cost_is_compared_with_what_its_run_spent() -> None:
    expected = forecast([(FP8, H100)], _known(BF16, FP8), 1)
    record = make_record(_ran(FP8, 101.0), references=(_ran(BF16, 40.4),))
    reference, case = accuracy(expected, record)
    assert (reference.case, reference.implicit, reference.spent_s) == (BF16.id, True, 40.4)
    assert reference.ratio == pytest.approx(1.25)
    assert (case.case, case.implicit) == (FP8.id, False)
    assert case.expected_s == pytest.approx(50.5)
    assert case.ratio == pytest.approx(0.5)


def test_spent_seconds_are_those_of_all_processes() -> None:
    (cost,) = accuracy(
        forecast([(BF16, H100)], _known(BF16), 2), make_record(_ran(BF16, 50.0, 30.0), references=())
    )
    assert cost.spent_s == 80.0


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(_ran(BF16, 50.0), id="interrupted"),
        pytest.param(msgspec.structs.replace(_ran(BF16, 50.0, 50.0), failure=make_failure()), id="failed"),
        pytest.param(_ran(FP8, 50.0, 50.0), id="not-expected"),
    ],
)
def test_a_run_that_was_not_measured_completely_is_left_out(run: Run) -> None:
    assert accuracy(forecast([(BF16, H100)], _known(BF16), 2), make_record(run, references=())) == ()


def test_a_case_without_an_expectation_has_no_ratio() -> None:
    (cost,) = accuracy(forecast([(BF16, H100)], {}, 1), make_record(_ran(BF16, 50.0), references=()))
    assert (cost.expected_s, cost.spent_s, cost.ratio) == (None, 50.0, None)
