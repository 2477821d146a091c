"""planning/cost_model.py: records of relatives in, seconds of a case out."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from perf_tests.harness.planning.cost_model import (
    UNKNOWN,
    CostBasis,
    ProcessCost,
    expected_cost,
)
from perf_tests.harness.planning.relatives import KnownCosts, RecordedCase
from perf_tests.protocol.messages import Phase
from perf_tests.tables import platforms
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.lazy import Lazy
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_2B, COGVIDEOX_5B
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.pipelines.llama import LLAMA_7B
from perf_tests.tables.platforms import CPU, WorkerStart
from perf_tests.tables.recipes import LEAF_OFFLOAD, MODEL_OFFLOAD, CompileMode, Setting
from perf_tests.tables.reshaping import Reshaping
from perf_tests.tables.schemes.rows import BF16, FP8DQ, INT8DQ, INT8WO
from perf_tests.unit.builders import make_case, make_entry
from perf_tests.unit.conftest import CASES
from perf_tests.unit.harness.planning.records import STAGES, case_of, record_of

REGIONAL, FULL = CompileMode.REGIONAL, CompileMode.FULL

COGVIDEOX = (COGVIDEOX_2B, COGVIDEOX_5B)

# A generation of six steps takes 100 + 300 + 5 x 200 + 500 ms = 1.9 s, the priming one of two steps 1.1 s;
# with one warm-up and the three timed ones of an H100, a process generates for 7.6 s, if no more are needed.
H100 = dataclasses.replace(platforms.H100, samples=3, worker_start=WorkerStart.FORKED)
STEADY = dataclasses.replace(H100, process_noise=None)


def _expected(case: Case, *records: RecordedCase, **published_s: float) -> ProcessCost:
    """`published_s`: case id -> latency on one and the same GPU."""
    of_gpu = {name: {"H100": latency_s} for name, latency_s in published_s.items()}
    return expected_cost(case, STEADY, KnownCosts(records=records, published_s=of_gpu))


# The case's own record


def test_recorded_seconds_are_expected_again() -> None:
    built = {"import": 2.0, "load": 12.0, "quantize": 0.4, "compile": 5.0}
    spent = {**built, "generate": 8.0, "inspect": 3.0, "turn": 1.0}
    cost = _expected(case_of(), record_of(case_of(), spent))
    assert cost.seconds == pytest.approx(spent)
    assert (cost.basis, cost.source) == (CostBasis.RECORDED, case_of().id)


def test_the_first_process_compiles_cold_and_the_others_warm() -> None:
    # Of three processes, the phase's own median is a warm one.
    case = case_of(compile=REGIONAL)
    record = record_of(case, {"compile": 4.8}, compile_cold_s=[19.0], compile_warm_s=[4.4, 5.2])
    cost = _expected(case, record)
    assert cost.seconds[Phase.COMPILE] == 19.0
    assert cost.compile_again_s == pytest.approx(4.8)


def test_an_entry_without_seconds_is_estimated_from_its_metrics() -> None:
    cost = _expected(case_of(), record_of(case_of()))
    assert cost.seconds == pytest.approx({Phase.GENERATE: 7.6, Phase.COMPILE: 1.1, Phase.INSPECT: 2.6 * 1.1})
    assert (cost.basis, cost.source) == (CostBasis.ESTIMATED, case_of().id)


@pytest.mark.parametrize(
    ("case", "inspect_s"),
    [
        pytest.param(case_of(fused=True), 2.6 * 1.1, id="resident"),
        pytest.param(case_of(offload=MODEL_OFFLOAD), 2.6 * 1.1 + 1.9, id="offloaded"),
    ],
)
def test_a_relative_does_not_say_how_long_a_case_is_inspected(case: Case, inspect_s: float) -> None:
    """One whole generation more, where memory is saved."""
    cost = _expected(case, record_of(case_of(), {"inspect": 99.0}))
    assert cost.seconds[Phase.INSPECT] == pytest.approx(inspect_s)


def test_a_case_that_is_only_verified_generates_once_after_its_warm_up() -> None:
    known = KnownCosts(records=(record_of(case_of(), {"generate": 8.0}),))
    assert expected_cost(case_of(), STEADY, known, 1).seconds[Phase.GENERATE] == pytest.approx(4.0)


def test_a_model_that_generates_nothing_answers_as_often_and_is_quantized_as_long_as_it_was() -> None:
    case = make_case(LLAMA_7B, scheme=INT8WO)
    spent = {"import": 0.5, "load": 12.0, "quantize": 2.0}
    entry = msgspec.structs.replace(make_entry({"answer_ms": [50.0]}, case=case), seconds=spent)
    cost = _expected(case, RecordedCase(case=case, entry=entry), record_of(case_of(), {"quantize": 9.0}))
    assert cost.seconds == pytest.approx({**spent, "generate": 0.2, "compile": 0.1, "inspect": 0.26})
    assert cost.source == case.id


@pytest.mark.parametrize(("dynamic", "compiled"), [(False, 3), (True, 1)])
def test_other_shapes_are_compiled_and_generated_twice(dynamic: bool, compiled: int) -> None:
    """Three quarters, nine sixteenths and twice the pixels."""
    case = case_of(compile=REGIONAL)
    reshaped = case.with_recipe(dataclasses.replace(case.build.recipe, reshaping=Reshaping(dynamic=dynamic)))
    cost = _expected(reshaped, record_of(case, compile_cold_s=[19.0]))
    assert cost.seconds[Phase.INSPECT] == pytest.approx(2.6 * 1.1 + compiled * 19.0 + 7.625 * 1.9)


# To generate


@pytest.mark.parametrize(
    ("step_ms", "generations"),
    [pytest.param(200.0, 1 + 7, id="until-precise"), pytest.param(1200.0, 1 + 3, id="slow")],
)
def test_a_process_generates_until_it_is_precise_unless_that_takes_long(
    step_ms: float, generations: int
) -> None:
    known = KnownCosts(records=(record_of(case_of(), step_ms=step_ms),))
    generation_s = (900.0 + 5 * step_ms) / 1e3
    cost = expected_cost(case_of(), H100, known)
    assert cost.seconds[Phase.GENERATE] == pytest.approx(generations * generation_s)


def test_a_record_says_how_often_it_generated() -> None:
    record = record_of(case_of(), {"generate": 9.5})
    counted = dataclasses.replace(record, entry=msgspec.structs.replace(record.entry, samples=4))
    # 9.5 s are 5 generations: the same again, and 8 for another case as quick.
    assert expected_cost(case_of(), H100, KnownCosts(records=(counted,))).seconds[
        Phase.GENERATE
    ] == pytest.approx(9.5)
    more = dataclasses.replace(H100, samples=5)  # than there were asked for then
    assert expected_cost(case_of(), more, KnownCosts(records=(counted,))).seconds[
        Phase.GENERATE
    ] == pytest.approx(6 * 1.9)
    alike = expected_cost(case_of(fused=True), H100, KnownCosts(records=(counted,)))
    assert alike.seconds[Phase.GENERATE] == pytest.approx(8 * 1.9)


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [pytest.param(5, 3, id="as-few-as-were-allowed"), pytest.param(8, 8, id="until-precise")],
)
def test_a_composed_row_is_expected_to_time_as_few_as_are_allowed_now(recorded: int, expected: int) -> None:
    case, platform = case_of(measured_steps=6), dataclasses.replace(H100, samples=5)
    record = record_of(case, {"generate": (recorded + 2) * 1.9})
    counted = dataclasses.replace(record, entry=msgspec.structs.replace(record.entry, samples=recorded))
    cost = expected_cost(case, platform, KnownCosts(records=(counted,)))
    assert cost.seconds[Phase.GENERATE] == pytest.approx((expected + 2) * 1.9)


@pytest.mark.parametrize(
    ("batch", "recorded_batch", "fidelity_s"),
    [
        pytest.param(1, 1, 9.0, id="recorded"),
        # A step of 800 ms instead of 200.
        pytest.param(4, 1, 9.0 + 14.5 * 0.6, id="larger"),
        # One of 50 ms would leave 6.8 s; one of 12.5 ms instead of 200 leaves 6.3.
        pytest.param(1, 4, 9.0 - 14.5 * 0.15, id="smaller"),
        pytest.param(1, 16, 9.0 - 14.5 * 0.1875, id="much-smaller"),
    ],
)
def test_answers_are_recorded_in_steps(batch: int, recorded_batch: int, fidelity_s: float) -> None:
    record = record_of(case_of(batch=recorded_batch), {"fidelity": 9.0})
    cost = _expected(case_of(batch=batch), record)
    assert cost.seconds[Phase.FIDELITY] == pytest.approx(fidelity_s)


def test_what_of_fidelity_is_not_steps_stays_where_they_are_much_shorter() -> None:
    record = record_of(case_of(batch=4), {"fidelity": 9.0}, step_ms=800.0)
    assert _expected(case_of(), record).seconds[Phase.FIDELITY] == pytest.approx(0.3 * 9.0)


def test_another_batch_takes_longer_steps_and_decodes_longer_but_encodes_as_long() -> None:
    # 100 + 4 x 300 + 5 x 4 x 200 + 4 x 500 = 7300 ms
    cost = _expected(case_of(batch=4), record_of(case_of()))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 7.3)


def test_the_overhead_of_the_host_scales_with_the_generation() -> None:
    cost = _expected(case_of(batch=4), record_of(case_of(), {"generate": 7.6 * 1.1}))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 7.3 * 1.1)


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        pytest.param((2.0, 7.5), (0.4, 2.5), id="imported-when-wanted"),
        pytest.param((0.3, 3.2), (0.3, 3.2), id="imported-ahead"),
        pytest.param((2.0, 5.5), (0.4, 1.0), id="hardly-loads"),
        pytest.param((10.0, 24.0), (0.4, 3.0), id="first-on-a-machine"),
    ],
)
def test_a_worker_that_imports_ahead_waits_and_loads_for_less(
    recorded: tuple[float, float], expected: tuple[float, float]
) -> None:
    """Than one that does not, as those that most baselines are of."""
    case, ahead = case_of(), dataclasses.replace(H100, worker_start=WorkerStart.AHEAD)
    usual = record_of(case_of(batch=8), {"import": min(recorded[0], 2.0)})
    record = record_of(case, dict(zip(("import", "load"), recorded, strict=True)))
    seconds = expected_cost(case, ahead, KnownCosts(records=(record, usual, usual))).seconds
    assert (seconds[Phase.IMPORT], seconds[Phase.LOAD]) == pytest.approx(expected)


def test_a_load_by_the_first_worker_on_a_machine_counts_without_the_cold_start() -> None:
    first = record_of(case_of(pipeline=COGVIDEOX_5B), {"import": 8.0, "load": 28.0})
    others = [record_of(case_of(scheme), {"import": 2.0, "load": 10.0}) for scheme in (BF16, FP8DQ)]
    cost = _expected(case_of(FP8DQ, pipeline=COGVIDEOX_5B), first, *others)
    # 28 s less the 16 s of an H100's cold start.
    assert (cost.seconds[Phase.IMPORT], cost.seconds[Phase.LOAD]) == (2.0, 12.0)


def test_a_load_counts_as_it_is_where_the_import_is_usual() -> None:
    records = [record_of(case_of(scheme), {"import": 2.0, "load": 28.0}) for scheme in (BF16, FP8DQ)]
    assert _expected(case_of(INT8DQ), *records).seconds[Phase.LOAD] == 28.0


def test_a_worker_that_waited_a_little_longer_for_its_imports_was_not_the_first() -> None:
    waits = ((BF16, 0.1, 10.0), (FP8DQ, 1.9, 28.0), (INT8WO, 0.1, 30.0))
    records = [
        record_of(case_of(scheme), {"import": import_s, "load": load_s}) for scheme, import_s, load_s in waits
    ]
    assert _expected(case_of(INT8DQ), *records).seconds[Phase.LOAD] == 28.0  # the median, not 12


def test_a_step_follows_the_published_ratio_where_both_are_published() -> None:
    # 100 + 150 + 5 x 100 + 500 = 1250 ms
    case = case_of(FP8DQ)
    cost = _expected(case, record_of(case_of()), **{case.id: 3.0, case_of().id: 6.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 1.25)


def test_the_published_ratio_is_that_of_steps() -> None:
    # Twelve steps in the time of six: a step is half as long. 100 + 150 + 11 x 100 + 500 = 1850 ms
    case = case_of(FP8DQ, steps=12)
    cost = _expected(case, record_of(case_of()), **{case.id: 6.0, case_of().id: 6.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 1.85)


def test_a_step_follows_the_pixels_where_only_one_is_published() -> None:
    case = case_of(FP8DQ)
    cost = _expected(case, record_of(case_of()), **{case.id: 3.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(7.6)


def test_a_published_ratio_between_two_gpus_does_not_count() -> None:
    case, source = case_of(FP8DQ), record_of(case_of())
    published_s = {case.id: {"A100": 60.0}, source.case.id: {"H100": 6.0}}
    cost = expected_cost(case, STEADY, KnownCosts(records=(source,), published_s=published_s))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(7.6)


def test_a_published_ratio_of_two_pipelines_on_one_gpu_counts() -> None:
    # 100 + 150 + 5 x 100 + 500 = 1250 ms
    case = case_of(pipeline=COGVIDEOX_2B)
    five_b = case_of(pipeline=COGVIDEOX_5B)
    cost = _expected(case, record_of(five_b), **{case.id: 3.0, five_b.id: 6.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 1.25)


def test_the_published_ratio_also_holds_for_a_case_that_generates_fewer_steps() -> None:
    # 50 steps in 100 s and 250 s: a step is 0.4 times as long. 100 + 120 + 3 x 80 + 500 = 960 ms
    of_2b, of_5b = (dataclasses.replace(case_of(pipeline=each), workload=each.workload) for each in COGVIDEOX)
    case, four = (
        dataclasses.replace(each, workload=dataclasses.replace(each.workload, steps=4, measured_steps=None))
        for each in (of_2b, of_5b)
    )
    cost = _expected(case, record_of(four), **{of_2b.id: 100.0, of_5b.id: 250.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 0.96)


def test_only_generated_steps_count_and_a_composed_latency_warms_up_longer() -> None:
    # Two of 50 steps, 1.1 s, in two warm-ups and three samples.
    cost = _expected(case_of(steps=50, measured_steps=2), record_of(case_of()))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(5 * 1.1)


def test_a_record_of_one_step_has_no_later_one() -> None:
    # 100 + 300 + 5 x 300 + 500 = 2400 ms
    entry = make_entry({name: STAGES[name] for name in STAGES if name != "denoise_step_ms"}, case=case_of())
    cost = _expected(case_of(batch=1), RecordedCase(case=case_of(), entry=entry))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 2.4)


def test_an_fp32_twin_takes_what_was_measured_along_with_a_relative() -> None:
    case = make_case(FLUX_MINI)
    entry = make_entry({**STAGES, "time_ratio_vs_fp32": [0.5]}, case=case)
    known = KnownCosts(records=(RecordedCase(case=case, entry=entry),))
    # Four steps, 100 + 300 + 3 x 200 + 500 = 1500 ms in bf16; a warm-up and five samples.
    assert expected_cost(case, CPU, known).seconds[Phase.GENERATE] == pytest.approx(6 * 1.5)
    assert expected_cost(case.fp32_twin, CPU, known).seconds[Phase.GENERATE] == pytest.approx(6 * 3.0)


def test_a_platform_that_fixes_the_number_of_samples_does_not_ask_how_many_were_recorded() -> None:
    case = make_case(FLUX_MINI)
    entry = make_entry(STAGES, case=case, seconds={"generate": 10 * 2.0}, samples=9)
    known = KnownCosts(records=(RecordedCase(case=case, entry=entry),))
    assert expected_cost(case, CPU, known).seconds[Phase.GENERATE] == pytest.approx(6 * 2.0)


# The built twin

RESIDENT = {"import": 2.0, "load": 12.0, "quantize": 0.4, "compile": 5.0, "generate": 7.6}


@pytest.mark.parametrize(
    ("mode", "seconds"),
    [
        pytest.param(CompileMode.EAGER, 14.4 + 1.9, id="eager"),
        pytest.param(REGIONAL, 19.4 + 1.9, id="compiled"),
    ],
)
def test_a_built_twin_without_a_record_takes_what_building_and_one_generation_do(
    mode: CompileMode, seconds: float
) -> None:
    case = case_of(compile=mode, offload=MODEL_OFFLOAD)
    cost = _expected(case, record_of(case_of(compile=mode), RESIDENT))
    assert cost.seconds[Phase.BUILT_TWIN] == pytest.approx(seconds)


def test_a_built_twin_takes_what_another_of_its_pipeline_did_and_not_of_another_one() -> None:
    case = case_of(offload=MODEL_OFFLOAD)
    another = case_of(pipeline=COGVIDEOX_5B, offload=LEAF_OFFLOAD)
    records = (record_of(another, {**RESIDENT, "built-twin": 90.0}), record_of(case_of(), RESIDENT))
    assert _expected(case, *records).seconds[Phase.BUILT_TWIN] == pytest.approx(16.3)

    own = record_of(case_of(offload=LEAF_OFFLOAD), {**RESIDENT, "built-twin": 30.0})
    assert _expected(case, *records, own).seconds[Phase.BUILT_TWIN] == 30.0


def test_what_packaging_takes_is_unknown_without_a_record_of_it() -> None:
    resident = record_of(case_of(compile=REGIONAL), RESIDENT)
    offloaded = record_of(case_of(offload=LEAF_OFFLOAD), {**RESIDENT, "built-twin": 30.0})
    cost = _expected(case_of(compile=CompileMode.AOTI), resident, offloaded)
    assert Phase.BUILT_TWIN not in cost.seconds


# To compile


def test_compiling_takes_what_a_relative_of_the_same_mode_took_beyond_its_own_two_steps() -> None:
    # Two steps of four images: 100 + 4 x 300 + 4 x 200 + 4 x 500 = 4100 ms
    record = record_of(case_of(compile=REGIONAL), compile_cold_s=[21.1], compile_warm_s=[5.1])
    cost = _expected(case_of(compile=REGIONAL, batch=4), record)
    assert cost.seconds[Phase.COMPILE] == pytest.approx(20.0 + 4.1)
    assert cost.compile_again_s == pytest.approx(4.0 + 4.1)


def test_a_nearer_relative_of_another_mode_says_nothing_about_compiling() -> None:
    case = case_of(FP8DQ, REGIONAL)
    records = (
        record_of(case_of(FP8DQ), {"compile": 1.3, "generate": 8.0}),
        record_of(case_of(INT8DQ, REGIONAL), compile_cold_s=[30.0]),
    )
    cost = _expected(case, *records, **{case.id: 1.0, case_of(FP8DQ).id: 1.0})
    assert cost.source == case_of(FP8DQ).id
    assert cost.seconds[Phase.COMPILE] == pytest.approx(30.0)


def test_every_process_compiles_as_long_as_the_first_without_a_warm_record() -> None:
    case = case_of(compile=REGIONAL)
    cost = _expected(case, record_of(case, compile_cold_s=[20.0]))
    assert cost.compile_again_s == 20.0


def test_a_warm_record_alone_does_not_say_how_long_the_first_process_compiles() -> None:
    case = case_of(compile=REGIONAL)
    cost = _expected(case, record_of(case, compile_warm_s=[4.0]))
    assert Phase.COMPILE not in cost.seconds
    assert cost.compile_again_s is None


TUNES = Setting(id="tunes", call=Lazy(target="torch:tune"), reason="", tuning_s=160.0)
TUNED = case_of(INT8DQ, REGIONAL, settings=(TUNES,))


@pytest.mark.parametrize(
    ("case", "record", "cold_s"),
    [
        pytest.param(TUNED, record_of(case_of(INT8DQ, REGIONAL), compile_cold_s=[19.0]), 179.0, id="guessed"),
        pytest.param(TUNED, record_of(TUNED, compile_cold_s=[175.0]), 175.0, id="recorded-with-a-miss"),
        pytest.param(TUNED, record_of(TUNED, {"compile": 24.0}), 184.0, id="recorded-with-hits"),
        pytest.param(case_of(INT8DQ, REGIONAL), record_of(TUNED, compile_cold_s=[179.0]), 19.0, id="untuned"),
        pytest.param(TUNED, record_of(TUNED, compile_cold_s=[45.0]), 160.0, id="tuned-faster-than-expected"),
    ],
)
def test_compiling_what_is_tuned_is_budgeted_as_if_nothing_were_known(
    case: Case, record: RecordedCase, cold_s: float
) -> None:
    assert _expected(case, record).seconds[Phase.COMPILE] == pytest.approx(cold_s)


def test_a_later_process_finds_what_the_first_one_tuned() -> None:
    record = record_of(case_of(INT8DQ, REGIONAL), compile_cold_s=[19.0], compile_warm_s=[5.0])
    assert _expected(TUNED, record).compile_again_s == pytest.approx(5.0)


def test_a_mode_that_was_never_compiled_is_unknown() -> None:
    cost = _expected(case_of(compile=FULL), record_of(case_of(compile=REGIONAL), compile_cold_s=[20.0]))
    assert Phase.COMPILE not in cost.seconds
    assert cost.compile_again_s is None


def test_a_whole_tuned_model_is_expected_to_compile_as_long_as_its_own_kernels_took() -> None:
    bf16, casts, float8, decoder = (
        CASES[f"flux1-dev-{rest}-maxautotune-{toggles}"]
        for rest, toggles in (
            ("slim-b1-bf16", "cl-cdt"),
            ("slim-b1-bf16", "cl-cdt-casts"),
            ("slim-b1-fp8dqrow", "cl-cdt"),
            ("b1-fp8dqrow", "fused-cvae-cl-cdt"),
        )
    )
    record = record_of(bf16, compile_cold_s=[385.0])
    recorded = _expected(bf16, record)
    assert recorded.seconds[Phase.COMPILE] == pytest.approx(385.0)
    assert recorded.compile_again_s == pytest.approx(385.0)
    assert _expected(casts, record).seconds[Phase.COMPILE] == pytest.approx(385.0)
    # Quantizing kernels and a decoder are tuned in addition: as long as is allowed.
    assert _expected(float8, record).seconds[Phase.COMPILE] == pytest.approx(1800.0)
    assert _expected(decoder, record).seconds[Phase.COMPILE] == pytest.approx(1800.0)


def test_another_pipeline_says_how_long_compiling_takes_where_its_own_was_only_eager() -> None:
    records = (
        record_of(case_of(pipeline=COGVIDEOX_5B)),
        record_of(case_of(compile=REGIONAL), compile_cold_s=[21.1]),
    )
    cost = _expected(case_of(compile=REGIONAL, pipeline=COGVIDEOX_5B), *records)
    assert cost.source == case_of(pipeline=COGVIDEOX_5B).id
    assert cost.seconds[Phase.COMPILE] == pytest.approx(21.1)


def test_a_row_that_trains_compiles_gradients_too() -> None:
    trains = CASES["flux1-dev-b1-bf16-regional-lora-ckpt"]
    generates = record_of(CASES["flux1-dev-b1-bf16-regional"], compile_cold_s=[15.9])
    alone, trained = _expected(generates.case, generates), _expected(trains, generates)
    assert alone.seconds[Phase.COMPILE] == pytest.approx(15.9)
    # Less the 1.1 s of two steps, which either takes once.
    assert trained.seconds[Phase.COMPILE] == pytest.approx(4 * (15.9 - 1.1) + 1.1)


# To build


def test_import_and_load_are_medians_which_the_first_worker_on_a_machine_does_not_move() -> None:
    records = (
        record_of(case_of(), {"import": 7.0, "load": 29.0}),
        record_of(case_of(FP8DQ), {"import": 2.0, "load": 12.0}),
        record_of(case_of(INT8DQ), {"import": 1.0, "load": 11.0}),
        record_of(case_of(pipeline=COGVIDEOX_5B), {"import": 2.2, "load": 50.0}),
    )
    cost = _expected(case_of(), *records)
    assert cost.seconds[Phase.IMPORT] == pytest.approx(2.1)
    # Of 12, 11, and 29 s less the 16 s of an H100's cold start.
    assert cost.seconds[Phase.LOAD] == 12.0


def test_weights_from_another_source_load_as_those_were_recorded() -> None:
    pretrained = case_of(weights=Weights.PRETRAINED)
    records = (record_of(case_of(), {"load": 12.0}), record_of(pretrained, {"load": 40.0}))
    assert _expected(case_of(FP8DQ, weights=Weights.PRETRAINED), *records).seconds[Phase.LOAD] == 40.0
    assert _expected(case_of(FP8DQ), *records).seconds[Phase.LOAD] == 12.0


def test_quantizing_takes_what_quantized_relatives_took() -> None:
    records = (
        record_of(case_of(), {"quantize": 0.0}),
        record_of(case_of(INT8DQ, REGIONAL), {"quantize": 0.5}),
    )
    assert _expected(case_of(FP8DQ), *records).seconds[Phase.QUANTIZE] == 0.5
    assert _expected(case_of(compile=REGIONAL), *records).seconds[Phase.QUANTIZE] == 0.0


# What it is based on


def test_another_pipeline_of_the_family_comes_before_any_other_and_both_are_guesses() -> None:
    mini, stranger = (
        record_of(case_of(FP8DQ, REGIONAL, pipeline=FLUX_MINI)),
        record_of(case_of(pipeline=COGVIDEOX_5B)),
    )
    cost = _expected(case_of(), stranger, mini)
    assert (cost.basis, cost.source) == (CostBasis.GUESSED, mini.case.id)
    assert _expected(case_of(), stranger).basis is CostBasis.GUESSED


def test_a_platform_without_records_has_unknown_costs_rather_than_zero() -> None:
    assert _expected(case_of()) == UNKNOWN
    assert (UNKNOWN.seconds, UNKNOWN.source) == ({}, None)


def test_a_record_without_stages_contributes_only_what_it_has() -> None:
    bare = RecordedCase(case=case_of(FP8DQ), entry=make_entry({"ssim": [1.0]}, case=case_of(FP8DQ)))
    assert _expected(case_of(), bare) == UNKNOWN
    with_load = RecordedCase(case=bare.case, entry=msgspec.structs.replace(bare.entry, seconds={"load": 9.0}))
    assert _expected(case_of(), with_load, record_of(case_of())).seconds[Phase.LOAD] == 9.0
