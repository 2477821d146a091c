"""planning/elsewhere.py: what another GPU has recorded in, the seconds expected of this one out."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from perf_tests.harness.planning.cost_model import CostBasis, ProcessCost, expected_cost
from perf_tests.harness.planning.elsewhere import with_others
from perf_tests.harness.planning.relatives import KnownCosts, RecordedCase
from perf_tests.protocol.messages import Phase
from perf_tests.tables import platforms
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_5B
from perf_tests.tables.pipelines.flux import FLUX1_DEV_SLIM
from perf_tests.tables.pipelines.llama import LLAMA_7B
from perf_tests.tables.platforms import WorkerStart
from perf_tests.tables.recipes import LEAF_OFFLOAD, CompileMode
from perf_tests.tables.schemes.rows import FP8DQ, INT8WO
from perf_tests.unit.builders import make_case, make_entry
from perf_tests.unit.harness.planning.records import case_of, record_of

# Six steps of 200 ms, with the other stages, are 1.9 s (see `records.STAGES`), and of 390 ms 2.85: 1.5 times.
HALF_AS_LONG_AGAIN_MS = 390.0
H100 = dataclasses.replace(platforms.H100, samples=3, worker_start=WorkerStart.FORKED)

RESIDENT, OFFLOADED = case_of(), case_of(offload=LEAF_OFFLOAD)
SPENT: dict[str, float] = {
    Phase.IMPORT: 2.0,
    Phase.LOAD: 12.0,
    Phase.QUANTIZE: 4.0,
    Phase.COMPILE: 6.0,
    Phase.GENERATE: 40.0,
    Phase.FIDELITY: 10.0,
    Phase.INSPECT: 8.0,
    Phase.BUILT_TWIN: 30.0,
}


def _counted(record: RecordedCase, samples: int) -> RecordedCase:
    return dataclasses.replace(record, entry=msgspec.structs.replace(record.entry, samples=samples))


def _expected(case: Case, *here: RecordedCase, there: tuple[RecordedCase, ...]) -> ProcessCost:
    return expected_cost(case, H100, with_others(KnownCosts(records=here), [there]))


def _found(
    case: Case, here: tuple[RecordedCase, ...], *there: tuple[RecordedCase, ...]
) -> RecordedCase | None:
    """What is known of `case` here."""
    known = with_others(KnownCosts(records=here), there)
    return next((each for each in known.records if each.case == case), None)


def test_a_case_of_another_gpu_takes_as_much_longer_as_what_both_have_recorded() -> None:
    there = (record_of(RESIDENT), _counted(record_of(OFFLOADED, SPENT, step_ms=900.0), 3))
    here = record_of(RESIDENT, {"import": 3.0}, step_ms=HALF_AS_LONG_AGAIN_MS)
    cost = _expected(OFFLOADED, here, there=there)

    assert cost.basis is CostBasis.ELSEWHERE
    assert cost.seconds == pytest.approx(
        {**SPENT, Phase.IMPORT: 3.0, Phase.GENERATE: 60.0, Phase.FIDELITY: 15.0, Phase.INSPECT: 12.0}
    )


def test_the_nearest_case_that_both_have_recorded_says_how_much_longer() -> None:
    near, far = case_of(batch=2), case_of(pipeline=COGVIDEOX_5B)
    here = (record_of(far, step_ms=5000.0), record_of(near, step_ms=HALF_AS_LONG_AGAIN_MS))
    found = _found(RESIDENT, here, (record_of(near), record_of(far), record_of(RESIDENT)))
    assert found is not None
    assert found.is_elsewhere
    assert found.entry.metrics["denoise_step_ms"] == pytest.approx((300.0,))
    assert found.entry.metrics["decode_ms"] == pytest.approx((750.0,))


def test_of_two_gpus_that_which_shares_the_nearest_case_is_asked() -> None:
    near, far = case_of(batch=2), case_of(pipeline=COGVIDEOX_5B)
    found = _found(
        RESIDENT,
        (record_of(far), record_of(near)),
        (record_of(far), record_of(RESIDENT, step_ms=100.0)),
        (record_of(near), record_of(RESIDENT, step_ms=800.0)),
    )
    assert found is not None
    assert found.entry.metrics["denoise_step_ms"] == pytest.approx((800.0,))


def test_what_this_gpu_has_recorded_itself_comes_first() -> None:
    here, there = _counted(record_of(RESIDENT, {"generate": 8.0}), 5), record_of(RESIDENT, {"generate": 20.0})
    cost = _expected(RESIDENT, here, record_of(OFFLOADED), there=(there, record_of(OFFLOADED)))
    assert cost.basis is CostBasis.RECORDED
    assert cost.seconds[Phase.GENERATE] == pytest.approx(8.0)


@pytest.mark.parametrize(
    "there",
    [
        pytest.param((record_of(RESIDENT, SPENT),), id="nothing-in-common"),
        pytest.param((record_of(case_of(FP8DQ)),), id="not-recorded-there"),
        pytest.param((), id="nothing-there"),
    ],
)
def test_without_a_case_in_common_the_nearest_relative_decides(there: tuple[RecordedCase, ...]) -> None:
    relative = case_of(FP8DQ)
    cost = _expected(RESIDENT, record_of(relative), there=there)
    assert (cost.basis, cost.source) == (CostBasis.ESTIMATED, relative.id)
    assert cost.seconds[Phase.GENERATE] == pytest.approx(8 * 1.9)


def test_a_case_without_the_times_of_its_stages_does_not_say_how_much_longer() -> None:
    half = make_case(FLUX1_DEV_SLIM)
    alone = RecordedCase(case=half, entry=make_entry({"denoise_step_ms": [1.0]}, case=half))
    assert _found(RESIDENT, (alone,), (alone, record_of(RESIDENT))) is None


def test_a_single_answer_is_scaled_as_well() -> None:
    case = make_case(LLAMA_7B, scheme=INT8WO)
    record = RecordedCase(case=case, entry=make_entry({"answer_ms": [50.0]}, case=case))
    here = record_of(RESIDENT, step_ms=HALF_AS_LONG_AGAIN_MS)
    cost = _expected(case, here, there=(record_of(RESIDENT), record))
    assert cost.seconds[Phase.COMPILE] == pytest.approx(2 * 0.075)


def test_a_compiled_case_compiles_as_long_as_on_the_other_gpu() -> None:
    case = case_of(FP8DQ, CompileMode.REGIONAL)
    record = record_of(case, {"compile": 4.0}, compile_cold_s=[19.0], compile_warm_s=[4.5])
    here = record_of(RESIDENT, step_ms=HALF_AS_LONG_AGAIN_MS)
    cost = _expected(case, here, there=(record_of(RESIDENT), record))
    assert (cost.seconds[Phase.COMPILE], cost.compile_again_s) == (19.0, 4.5)


def test_what_another_gpu_has_recorded_is_a_relative_of_what_none_has() -> None:
    quantized = case_of(FP8DQ, offload=LEAF_OFFLOAD)
    there = (record_of(RESIDENT), _counted(record_of(OFFLOADED, step_ms=900.0), 3))
    here = (record_of(RESIDENT, step_ms=HALF_AS_LONG_AGAIN_MS), record_of(case_of(FP8DQ)))
    cost = _expected(quantized, *here, there=there)
    assert (cost.basis, cost.source) == (CostBasis.ESTIMATED, OFFLOADED.id)
    # Stages of 0.9 s and five steps of 0.9, half as long again.
    assert cost.seconds[Phase.GENERATE] == pytest.approx((1 + 3) * 1.5 * 5.4)


def test_how_long_another_host_imports_says_nothing_about_this_one() -> None:
    there = (record_of(RESIDENT), record_of(OFFLOADED, {"import": 40.0}))
    assert Phase.IMPORT not in _expected(OFFLOADED, record_of(RESIDENT), there=there).seconds
