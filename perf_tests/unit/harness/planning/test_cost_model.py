"""estimate.py: records of relatives in, seconds of a case out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
import pytest

from perf_tests.harness.planning.cost_model import (
    UNKNOWN,
    CostBasis,
    KnownCosts,
    ProcessCost,
    RecordedCase,
    expected_cost,
    recorded_cases,
)
from perf_tests.protocol.messages import Phase
from perf_tests.tables import platforms
from perf_tests.tables.cases import Build, Case, Weights
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_2B, COGVIDEOX_5B
from perf_tests.tables.pipelines.flux import FLUX1_DEV, FLUX_MINI
from perf_tests.tables.pipelines.spec import PipelineSpec, Workload
from perf_tests.tables.platforms import CPU
from perf_tests.tables.recipes import CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16, FP8DQ, FP8DQROW, INT8DQ
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.unit.builders import make_baselines, make_case, make_entry

EAGER, REGIONAL, FULL = CompileMode.EAGER, CompileMode.REGIONAL, CompileMode.FULL

COGVIDEOX = (COGVIDEOX_2B, COGVIDEOX_5B)

# A generation of six steps takes 100 + 300 + 5 x 200 + 500 ms = 1.9 s, the priming one of two steps 1.1 s;
# with a warm-up beside the three timed ones of an H100, a process generates for 7.6 s, if no more are needed.
H100 = dataclasses.replace(platforms.H100, samples=3)
STEADY = dataclasses.replace(H100, process_noise=None)
STAGES = {"encode_ms": [100.0], "first_step_ms": [300.0], "denoise_step_ms": [200.0], "decode_ms": [500.0]}


def _case(
    scheme: Scheme = BF16,
    compile: CompileMode = EAGER,
    *,
    pipeline: PipelineSpec = FLUX1_DEV,
    weights: Weights = Weights.SYNTHETIC,
    batch: int = 1,
    steps: int = 6,
    measured_steps: int | None = None,
    fused: bool = False,
) -> Case:
    """Always 100 x 100 pixels, whatever the pipeline's default."""
    recipe = Recipe(scheme=scheme, compile=compile, fuse_qkv=fused)
    return Case(
        build=Build(pipeline=pipeline, recipe=recipe, weights=weights),
        workload=Workload(
            height=100, width=100, steps=steps, batch_size=batch, measured_steps=measured_steps
        ),
    )


def _record(
    case: Case, seconds: dict[str, float] | None = None, *, step_ms: float = 200.0, **metrics: Sequence[float]
) -> RecordedCase:
    """An entry with the stages above, and what is named."""
    entry = make_entry({**STAGES, "denoise_step_ms": [step_ms], **metrics}, case=case)
    return RecordedCase(case=case, entry=msgspec.structs.replace(entry, seconds=seconds or {}))


def _expected(case: Case, *records: RecordedCase, **published_s: float) -> ProcessCost:
    """`published_s`: case id -> latency on one and the same GPU."""
    of_gpu = {name: {"H100": latency_s} for name, latency_s in published_s.items()}
    return expected_cost(case, STEADY, KnownCosts(records=records, published_s=of_gpu))


def _source(case: Case, *records: RecordedCase, published: Sequence[Case] = ()) -> str | None:
    return expected_cost(
        case, STEADY, KnownCosts(records=records, published_s={each.id: {"H100": 1.0} for each in published})
    ).source


# The case's own record


def test_what_was_recorded_is_expected_again() -> None:
    spent = {"import": 2.0, "load": 12.0, "quantize": 0.4, "compile": 5.0, "generate": 8.0, "turn": 1.0}
    cost = _expected(_case(), _record(_case(), spent))
    assert cost.seconds == pytest.approx(spent)
    assert (cost.basis, cost.source) == (CostBasis.RECORDED, _case().id)


def test_the_first_process_compiles_cold_and_the_others_warm() -> None:
    # Of three processes, the phase's own median is a warm one.
    case = _case(compile=REGIONAL)
    record = _record(case, {"compile": 4.8}, compile_cold_s=[19.0], compile_warm_s=[4.4, 5.2])
    cost = _expected(case, record)
    assert cost.seconds[Phase.COMPILE] == 19.0
    assert cost.compile_again_s == pytest.approx(4.8)


def test_an_entry_without_seconds_tells_through_its_metrics() -> None:
    cost = _expected(_case(), _record(_case()))
    assert cost.seconds == pytest.approx({Phase.GENERATE: 7.6, Phase.COMPILE: 1.1})
    assert (cost.basis, cost.source) == (CostBasis.ESTIMATED, _case().id)


def test_a_case_that_is_only_proved_generates_once_after_its_warm_up() -> None:
    known = KnownCosts(records=(_record(_case(), {"generate": 8.0}),))
    assert expected_cost(_case(), STEADY, known, 1).seconds[Phase.GENERATE] == pytest.approx(4.0)


# To generate


@pytest.mark.parametrize(
    ("step_ms", "generations"),
    [pytest.param(200.0, 1 + 7, id="until-precise"), pytest.param(1200.0, 1 + 3, id="slow")],
)
def test_a_process_generates_until_it_is_precise_unless_that_takes_long(
    step_ms: float, generations: int
) -> None:
    known = KnownCosts(records=(_record(_case(), step_ms=step_ms),))
    generation_s = (900.0 + 5 * step_ms) / 1e3
    cost = expected_cost(_case(), H100, known)
    assert cost.seconds[Phase.GENERATE] == pytest.approx(generations * generation_s)


def test_a_record_says_how_often_it_generated() -> None:
    record = _record(_case(), {"generate": 9.5})
    counted = dataclasses.replace(record, entry=msgspec.structs.replace(record.entry, samples=4))
    # 9.5 s are 5 generations: the same again, and 8 for another case as quick.
    assert expected_cost(_case(), H100, KnownCosts(records=(counted,))).seconds[
        Phase.GENERATE
    ] == pytest.approx(9.5)
    more = dataclasses.replace(H100, samples=5)  # than there were asked for then
    assert expected_cost(_case(), more, KnownCosts(records=(counted,))).seconds[
        Phase.GENERATE
    ] == pytest.approx(6 * 1.9)
    alike = expected_cost(_case(fused=True), H100, KnownCosts(records=(counted,)))
    assert alike.seconds[Phase.GENERATE] == pytest.approx(8 * 1.9)


def test_another_batch_takes_longer_steps_and_decodes_longer_but_encodes_as_long() -> None:
    # 100 + 4 x 300 + 5 x 4 x 200 + 4 x 500 = 7300 ms
    cost = _expected(_case(batch=4), _record(_case()))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 7.3)


def test_what_the_host_spends_besides_is_taken_over() -> None:
    cost = _expected(_case(batch=4), _record(_case(), {"generate": 7.6 * 1.1}))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 7.3 * 1.1)


def test_a_machine_s_first_worker_is_no_measure_of_loading() -> None:
    first = _record(_case(pipeline=COGVIDEOX_5B), {"import": 8.0, "load": 28.0})
    others = [_record(_case(scheme), {"import": 2.0, "load": 10.0}) for scheme in (BF16, FP8DQ)]
    cost = _expected(_case(FP8DQ, pipeline=COGVIDEOX_5B), first, *others)
    # 28 s less the 16 s of an H100's cold start.
    assert (cost.seconds[Phase.IMPORT], cost.seconds[Phase.LOAD]) == (2.0, 12.0)


def test_a_load_counts_as_it_is_where_the_import_is_usual() -> None:
    records = [_record(_case(scheme), {"import": 2.0, "load": 28.0}) for scheme in (BF16, FP8DQ)]
    assert _expected(_case(INT8DQ), *records).seconds[Phase.LOAD] == 28.0


def test_where_both_are_published_the_step_follows_the_ratio() -> None:
    # 100 + 150 + 5 x 100 + 500 = 1250 ms
    case = _case(FP8DQ)
    cost = _expected(case, _record(_case()), **{case.id: 3.0, _case().id: 6.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 1.25)


def test_the_published_ratio_is_that_of_steps() -> None:
    # Twelve steps in the time of six: a step is half as long. 100 + 150 + 11 x 100 + 500 = 1850 ms
    case = _case(FP8DQ, steps=12)
    cost = _expected(case, _record(_case()), **{case.id: 6.0, _case().id: 6.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 1.85)


def test_where_only_one_is_published_the_step_follows_the_pixels() -> None:
    case = _case(FP8DQ)
    cost = _expected(case, _record(_case()), **{case.id: 3.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(7.6)


def test_a_published_ratio_of_two_gpus_means_nothing() -> None:
    case, source = _case(FP8DQ), _record(_case())
    published_s = {case.id: {"A100": 60.0}, source.case.id: {"H100": 6.0}}
    cost = expected_cost(case, STEADY, KnownCosts(records=(source,), published_s=published_s))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(7.6)


def test_a_published_ratio_of_two_pipelines_on_one_gpu_counts() -> None:
    # 100 + 150 + 5 x 100 + 500 = 1250 ms
    case = _case(pipeline=COGVIDEOX_2B)
    five_b = _case(pipeline=COGVIDEOX_5B)
    cost = _expected(case, _record(five_b), **{case.id: 3.0, five_b.id: 6.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 1.25)


def test_the_ratio_is_also_that_of_a_case_which_generates_few_of_the_published_steps() -> None:
    # 50 steps in 100 s and 250 s: a step is 0.4 times as long. 100 + 120 + 3 x 80 + 500 = 960 ms
    of_2b, of_5b = (dataclasses.replace(_case(pipeline=each), workload=each.workload) for each in COGVIDEOX)
    case, four = (
        dataclasses.replace(each, workload=dataclasses.replace(each.workload, steps=4, measured_steps=None))
        for each in (of_2b, of_5b)
    )
    cost = _expected(case, _record(four), **{of_2b.id: 100.0, of_5b.id: 250.0})
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 0.96)


def test_only_generated_steps_count_and_a_composed_latency_warms_up_longer() -> None:
    # Two of 50 steps, 1.1 s, in two warm-ups and three samples.
    cost = _expected(_case(steps=50, measured_steps=2), _record(_case()))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(5 * 1.1)


def test_a_record_of_one_step_has_no_later_one() -> None:
    # 100 + 300 + 5 x 300 + 500 = 2400 ms
    entry = make_entry({name: STAGES[name] for name in STAGES if name != "denoise_step_ms"}, case=_case())
    cost = _expected(_case(batch=1), RecordedCase(case=_case(), entry=entry))
    assert cost.seconds[Phase.GENERATE] == pytest.approx(4 * 2.4)


def test_an_fp32_twin_takes_what_was_measured_beside_a_relative() -> None:
    case = make_case(FLUX_MINI)
    entry = make_entry({**STAGES, "time_ratio_vs_fp32": [0.5]}, case=case)
    known = KnownCosts(records=(RecordedCase(case=case, entry=entry),))
    # Four steps, 100 + 300 + 3 x 200 + 500 = 1500 ms in bf16; a warm-up and nine samples.
    assert expected_cost(case, CPU, known).seconds[Phase.GENERATE] == pytest.approx(10 * 1.5)
    assert expected_cost(case.fp32_twin, CPU, known).seconds[Phase.GENERATE] == pytest.approx(10 * 3.0)


# To compile


def test_compiling_is_what_a_relative_of_the_same_mode_took_beyond_its_own_two_steps() -> None:
    # Two steps of four images: 100 + 4 x 300 + 4 x 200 + 4 x 500 = 4100 ms
    record = _record(_case(compile=REGIONAL), compile_cold_s=[21.1], compile_warm_s=[5.1])
    cost = _expected(_case(compile=REGIONAL, batch=4), record)
    assert cost.seconds[Phase.COMPILE] == pytest.approx(20.0 + 4.1)
    assert cost.compile_again_s == pytest.approx(4.0 + 4.1)


def test_a_nearer_relative_of_another_mode_tells_nothing_about_compiling() -> None:
    case = _case(FP8DQ, REGIONAL)
    records = (
        _record(_case(FP8DQ), {"compile": 1.3, "generate": 8.0}),
        _record(_case(INT8DQ, REGIONAL), compile_cold_s=[30.0]),
    )
    cost = _expected(case, *records, **{case.id: 1.0, _case(FP8DQ).id: 1.0})
    assert cost.source == _case(FP8DQ).id
    assert cost.seconds[Phase.COMPILE] == pytest.approx(30.0)


def test_without_a_warm_record_every_process_compiles_as_long_as_the_first() -> None:
    case = _case(compile=REGIONAL)
    cost = _expected(case, _record(case, compile_cold_s=[20.0]))
    assert cost.compile_again_s == 20.0


def test_a_warm_record_alone_does_not_tell_how_long_the_first_process_compiles() -> None:
    case = _case(compile=REGIONAL)
    cost = _expected(case, _record(case, compile_warm_s=[4.0]))
    assert Phase.COMPILE not in cost.seconds
    assert cost.compile_again_s is None


def test_a_mode_that_was_never_compiled_is_not_known() -> None:
    cost = _expected(_case(compile=FULL), _record(_case(compile=REGIONAL), compile_cold_s=[20.0]))
    assert Phase.COMPILE not in cost.seconds
    assert cost.compile_again_s is None


def test_another_pipeline_tells_about_compiling_where_its_own_was_only_eager() -> None:
    records = (
        _record(_case(pipeline=COGVIDEOX_5B)),
        _record(_case(compile=REGIONAL), compile_cold_s=[21.1]),
    )
    cost = _expected(_case(compile=REGIONAL, pipeline=COGVIDEOX_5B), *records)
    assert cost.source == _case(pipeline=COGVIDEOX_5B).id
    assert cost.seconds[Phase.COMPILE] == pytest.approx(21.1)


# To build


def test_import_and_load_are_medians_which_the_first_worker_on_a_machine_does_not_move() -> None:
    records = (
        _record(_case(), {"import": 7.0, "load": 29.0}),
        _record(_case(FP8DQ), {"import": 2.0, "load": 12.0}),
        _record(_case(INT8DQ), {"import": 1.0, "load": 11.0}),
        _record(_case(pipeline=COGVIDEOX_5B), {"import": 2.2, "load": 50.0}),
    )
    cost = _expected(_case(), *records)
    assert cost.seconds[Phase.IMPORT] == pytest.approx(2.1)
    # Of 12, 11, and 29 s less the 16 s of an H100's cold start.
    assert cost.seconds[Phase.LOAD] == 12.0


def test_weights_from_elsewhere_load_as_those_were_recorded() -> None:
    pretrained = _case(weights=Weights.PRETRAINED)
    records = (_record(_case(), {"load": 12.0}), _record(pretrained, {"load": 40.0}))
    assert _expected(_case(FP8DQ, weights=Weights.PRETRAINED), *records).seconds[Phase.LOAD] == 40.0
    assert _expected(_case(FP8DQ), *records).seconds[Phase.LOAD] == 12.0


def test_how_long_quantizing_takes_is_told_by_quantized_relatives() -> None:
    records = (_record(_case(), {"quantize": 0.0}), _record(_case(INT8DQ, REGIONAL), {"quantize": 0.5}))
    assert _expected(_case(FP8DQ), *records).seconds[Phase.QUANTIZE] == 0.5
    assert _expected(_case(compile=REGIONAL), *records).seconds[Phase.QUANTIZE] == 0.0


# What is near


def test_the_same_recipe_at_another_workload_is_nearest() -> None:
    records = (_record(_case(FP8DQ, batch=8)), _record(_case(INT8DQ)))
    assert _source(_case(FP8DQ), *records, published=[_case(FP8DQ), _case(INT8DQ)]) == records[0].case.id


def test_a_published_ratio_comes_before_the_same_mode() -> None:
    records = (_record(_case(FP8DQ)), _record(_case(BF16, REGIONAL)))
    assert _source(_case(), *records) == records[0].case.id
    assert _source(_case(), *records, published=[_case(), _case(BF16, REGIONAL)]) == records[1].case.id


def test_what_is_compiled_comes_before_the_scheme() -> None:
    records = (_record(_case(FP8DQ)), _record(_case(INT8DQ, REGIONAL)))
    assert _source(_case(FP8DQ, REGIONAL), *records) == records[1].case.id


def test_the_scheme_comes_before_none_and_none_before_another() -> None:
    own, none = _record(_case(FP8DQ, fused=True)), _record(_case())
    dearer = _record(_case(INT8DQ), step_ms=300.0)
    assert _source(_case(FP8DQ), dearer, none, own) == own.case.id
    assert _source(_case(FP8DQ), dearer, none) == none.case.id


def test_the_nearest_size_is_taken_and_of_equals_the_dearest() -> None:
    small, large = _case(batch=2), _case(batch=16)
    assert _source(_case(batch=12), _record(small), _record(large)) == large.id
    slow, fast = _record(_case(FP8DQ), step_ms=300.0), _record(_case(INT8DQ), step_ms=100.0)
    assert _source(_case(FP8DQROW), slow, fast) == _source(_case(FP8DQROW), fast, slow) == slow.case.id


def test_its_own_pipeline_comes_before_everything() -> None:
    own, other = _record(_case(FP8DQ, REGIONAL, batch=16)), _record(_case(pipeline=COGVIDEOX_5B))
    assert _source(_case(), own, other) == own.case.id


def test_another_pipeline_of_the_family_comes_before_a_stranger_and_both_are_guesses() -> None:
    mini, stranger = (
        _record(_case(FP8DQ, REGIONAL, pipeline=FLUX_MINI)),
        _record(_case(pipeline=COGVIDEOX_5B)),
    )
    cost = _expected(_case(), stranger, mini)
    assert (cost.basis, cost.source) == (CostBasis.GUESSED, mini.case.id)
    assert _expected(_case(), stranger).basis is CostBasis.GUESSED


def test_without_records_nothing_is_known_and_nothing_is_zero() -> None:
    assert _expected(_case()) == UNKNOWN
    assert (UNKNOWN.seconds, UNKNOWN.source) == ({}, None)


def test_a_record_without_stages_tells_what_it_can_but_not_everything() -> None:
    bare = RecordedCase(case=_case(FP8DQ), entry=make_entry({"ssim": [1.0]}, case=_case(FP8DQ)))
    assert _expected(_case(), bare) == UNKNOWN
    with_load = RecordedCase(case=bare.case, entry=msgspec.structs.replace(bare.entry, seconds={"load": 9.0}))
    assert _expected(_case(), with_load, _record(_case())).seconds[Phase.LOAD] == 9.0


# Records


def test_entries_are_joined_with_their_cases_unless_these_have_changed() -> None:
    case, changed = make_case(), make_case(fuse_qkv=True)
    entry, outdated = make_entry(case=case), make_entry(case=changed, digest="0" * 64)
    baselines = make_baselines(cases={case.id: entry, changed.id: outdated})
    found = recorded_cases({"flux-mini": baselines}, (case, changed, make_case(scheme=INT8DQ)))
    assert found == (RecordedCase(case=case, entry=entry),)
