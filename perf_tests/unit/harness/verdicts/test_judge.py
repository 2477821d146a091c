from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
import pytest

from perf_tests.harness.runs.record import (
    Process,
    Run,
    Status,
    Verdict,
)
from perf_tests.harness.runs.validity import SLOWDOWNS, invalidity
from perf_tests.harness.verdicts.judge import has_loaded_its_caches, judge_metric
from perf_tests.protocol.reports import CompileCache, TunedChoices
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import CPU, H100, H200, Platform
from perf_tests.tables.recipes import INT8_GEMM, LEAF_OFFLOAD, CompileMode, Recipe
from perf_tests.tables.schemes.rows import BF16, INT8DQ, INT8DQ_SPARSE24
from perf_tests.unit.builders import (
    COLD_CACHE,
    FLUX_FP8,
    GPU,
    H100_UUID,
    MINI_INT8WO,
    make_accepted,
    make_build,
    make_entry,
    make_environment,
    make_process,
    make_reference,
    make_run,
    make_sample,
    make_significance,
    make_telemetry,
    metric_named,
)
from perf_tests.unit.harness.verdicts.judging import judged, run_of

OTHER_CARD = "GPU-00000000-0000-0000-0000-000000000002"
FLUX_TUNED = FLUX_FP8.with_recipe(
    dataclasses.replace(FLUX_FP8.build.recipe, scheme=INT8DQ, settings=(INT8_GEMM,))
)
FLUX_EAGER = FLUX_FP8.with_recipe(
    dataclasses.replace(FLUX_FP8.build.recipe, compile=CompileMode.EAGER, settings=())
)
FLUX_SPARSE = FLUX_FP8.with_recipe(dataclasses.replace(FLUX_FP8.build.recipe, scheme=INT8DQ_SPARSE24))


FLUX_COPYING = FLUX_FP8.with_recipe(Recipe(scheme=BF16, offload=LEAF_OFFLOAD))


@pytest.mark.parametrize(
    ("case", "limit_ms", "why"),
    [
        (FLUX_SPARSE, 1600.0, "host-bound, each product sets up cuSPARSELt anew"),
        (FLUX_COPYING, 1280.0, "weights are copied in each step"),
    ],
    ids=["scheme", "copies"],
)
@pytest.mark.parametrize(
    ("beyond_ms", "status"), [(-500.0, Status.PASS), (-1.0, Status.PASS), (1.0, Status.REGRESSED)]
)
def test_unsteady_steps_of_800_ms_have_a_wide_limit(
    case: Case, limit_ms: float, why: str, beyond_ms: float, status: Status
) -> None:
    run = make_run(case, H100, processes=_steps(limit_ms + beyond_ms))
    verdict = judged("denoise_step_ms", [], [800.0], entry={"digest": case.digest}, case=case, run=run)
    assert verdict.status is status
    assert (verdict.limit, verdict.ci_pct, verdict.wants_more) == (limit_ms, None, False)
    assert why in verdict.reason


@pytest.mark.parametrize(
    ("accepted", "measured", "status"),
    [
        (27.4, 17.1, Status.PASS),  # copies that take 1.6 times as long
        (27.4, 13.6, Status.REGRESSED),
        (27.4, 0.0, Status.REGRESSED),  # no stream of their own
    ],
)
def test_copies_stay_hidden_under_kernels(accepted: float, measured: float, status: Status) -> None:
    build = make_build({"copies_under_kernels_pct": measured})
    run = make_run(FLUX_COPYING, H100, processes=(make_process(build=build),))
    entry = {"digest": FLUX_COPYING.digest}
    verdict = judged("copies_under_kernels_pct", [], [accepted], entry=entry, case=FLUX_COPYING, run=run)
    assert verdict.status is status


def _steps(value_ms: float) -> tuple[Process, ...]:
    return (make_process(samples=(make_sample({"denoise_step_ms": [value_ms]}),)),)


def _judge_after_steps(first: float, accepted: float, better_by: float = 1.0) -> Verdict:
    drifted = {"first": {"denoise_step_ms": (first,) * 5}}
    return judged("denoise_step_ms", [accepted * better_by], [accepted] * 5, entry=drifted)


def test_drift_of_accepted_changes_that_add_up_is_mentioned() -> None:
    verdict = _judge_after_steps(100.0, 103.0)
    assert verdict.status is Status.PASS
    assert verdict.reason.endswith(
        "; accepted changes have moved the baseline by +3.00 % from the first, and +5.00 % is the most"
    )


@pytest.mark.parametrize("accepted", [102.0, 100.0, 90.0])
def test_drift_that_is_small_or_an_improvement_is_not_mentioned(accepted: float) -> None:
    assert "accepted changes" not in _judge_after_steps(100.0, accepted).reason


@pytest.mark.parametrize(
    ("name", "measured", "status"),
    [
        ("denoise_step_ms", 106.0, Status.PASS),
        ("denoise_step_ms", 107.5, Status.REGRESSED),
        ("decode_ms", 102.5, Status.PASS),
        ("decode_ms", 103.5, Status.REGRESSED),
    ],
)
def test_another_card_is_judged_with_the_noise_between_cards(
    name: str, measured: float, status: Status
) -> None:
    verdict = judged(name, [measured] * 5, [100.0] * 5, unit=OTHER_CARD)
    assert verdict.status is status
    assert verdict.reason.startswith("on another unit than the baseline's: +")
    between = H100.between_cards[name].sd_pct
    assert f"the noise of 5 processes against 5, and {between:g} % between cards" in verdict.reason


def test_another_card_is_judged_at_the_tolerance_of_its_platform_where_cards_are_not_known() -> None:
    unknown = dataclasses.replace(H100, between_cards={})
    verdict = judged("denoise_step_ms", [107.0] * 5, [100.0] * 5, unit=OTHER_CARD, platform=unknown)
    assert verdict.status is Status.PASS
    assert verdict.limit == pytest.approx(108.0)


@pytest.mark.parametrize(
    ("case", "platform"),
    [pytest.param(FLUX_FP8, H200, id="cards-of-another-model"), pytest.param(FLUX_EAGER, H100, id="eager")],
)
def test_what_is_known_of_the_cards_of_one_platform_is_not_said_of_others_or_of_eager_steps(
    case: Case, platform: Platform
) -> None:
    """Two H200s lay 7.0 % apart in an eager step of Stable Diffusion 3, with the same code."""
    run = make_run(case, platform, processes=_steps(107.0) * 5)
    verdict = judged(
        "denoise_step_ms",
        [],
        [100.0] * 5,
        unit=OTHER_CARD,
        case=case,
        platform=platform,
        run=run,
        entry={"digest": case.digest},
    )
    assert verdict.status is Status.PASS
    assert verdict.limit == pytest.approx(108.0)


def test_a_metric_without_noise_is_judged_at_that_tolerance_too() -> None:
    verdict = judged("encode_ms", [160.0], [100.0], unit=OTHER_CARD)
    assert verdict.status is Status.PASS
    assert verdict.limit == pytest.approx(330.0)


def test_another_card_widens_the_surprise_bound_too() -> None:
    wide = dataclasses.replace(H100, unit_tolerance_pct=40.0, between_cards={})
    assert judged("denoise_step_ms", [75.0] * 3, [100.0] * 3).status is Status.SURPRISE
    elsewhere = judged("denoise_step_ms", [75.0] * 3, [100.0] * 3, unit=OTHER_CARD, platform=wide)
    assert elsewhere.status is Status.PASS


def test_another_card_does_not_excuse_memory() -> None:
    verdict = judged("model_memory_mib", [101.0] * 3, [100.0] * 3, unit=OTHER_CARD)
    assert (verdict.status, verdict.limit) == (Status.REGRESSED, 100.5)
    assert "another unit" not in verdict.reason


STACK = {"torch": "2.11.0+cu130 (70d99e998b)", "triton": "3.6.0", "diffusers": "0.42.1"}


def _judge_kernels(
    measured: Sequence[float], baseline: Sequence[float], *, then: dict[str, str], now: dict[str, str]
) -> Verdict:
    environment = make_environment(gpu=GPU, packages=now)
    processes = tuple(
        msgspec.structs.replace(process, environment=environment)
        for process in run_of("kernels_per_step", measured).processes
    )
    run = msgspec.structs.replace(run_of("kernels_per_step", measured), processes=processes)
    return judged("kernels_per_step", measured, baseline, run=run, provenance={"packages": then})


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        pytest.param(1530.0, Status.PASS, id="as-many"),
        pytest.param(1531.0, Status.REGRESSED, id="one-more"),
        pytest.param(1529.0, Status.REGRESSED, id="one-less"),
    ],
)
def test_kernels_are_exact_against_the_same_torch_and_triton(measured: float, status: Status) -> None:
    others = {"diffusers": "0.43.0", "mslk": "1.0"}
    verdict = _judge_kernels([measured], [1530.0], then=STACK, now={**STACK, **others})
    assert (verdict.status, verdict.measured, verdict.baseline) == (status, measured, 1530.0)


@pytest.mark.parametrize(
    ("metric", "measured", "status"),
    [
        # The products of 38 blocks, each with a kernel more behind it, or with one less.
        pytest.param("kernels_per_step", 1627.0 + 76.0, Status.PASS, id="two-epilogues-not-fused"),
        pytest.param("kernels_per_step", 1627.0 - 76.0, Status.PASS, id="two-more-fused"),
        pytest.param("kernels_per_step", 2 * 1627.0, Status.REGRESSED, id="twice-the-work"),
        # No graph breaks because another kernel is faster.
        pytest.param("graph_breaks", 1628.0, Status.REGRESSED, id="of-the-graph"),
    ],
)
def test_kernels_that_are_chosen_by_timing_need_not_be_as_many_as_before(
    metric: str, measured: float, status: Status
) -> None:
    """On the baseline's own torch and triton: each process chooses for itself what is faster by a hair."""
    verdict = judged(metric, [1627.0, measured], [1627.0], case=FLUX_TUNED)
    assert (verdict.status, verdict.measured) == (status, measured)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            {"torch": "2.12.0 (aaaaaaaaaa)"},
            "torch 2.11.0+cu130 (70d99e998b) -> 2.12.0 (aaaaaaaaaa)",
            id="torch",
        ),
        pytest.param(
            {"torch": "2.11.0+cu130 (bbbbbbbbbb)"},
            "torch 2.11.0+cu130 (70d99e998b) -> 2.11.0+cu130 (bbbbbbbbbb)",
            id="another-revision",
        ),
        pytest.param({"triton": "3.6.1"}, "triton 3.6.0 -> 3.6.1", id="triton"),
        pytest.param(
            {"torch": "2.12.0", "triton": "3.7.0"},
            "torch 2.11.0+cu130 (70d99e998b) -> 2.12.0; triton 3.6.0 -> 3.7.0",
            id="both",
        ),
    ],
)
def test_another_torch_or_triton_widens_the_limit_of_kernels(change: dict[str, str], said: str) -> None:
    verdict = _judge_kernels([1700.0], [1530.0], then=STACK, now={**STACK, **change})
    assert (verdict.status, verdict.measured, verdict.baseline) == (Status.PASS, 1700.0, 1530.0)
    assert verdict.limit == pytest.approx(1989.0)
    assert verdict.reason.startswith(f"on another stack than the baseline's ({said}): +11.11 %")


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        pytest.param([1989.0], Status.PASS, id="a-third-more"),
        pytest.param([1990.0], Status.REGRESSED, id="more"),
        pytest.param([1071.0], Status.PASS, id="a-third-less"),
        pytest.param([1070.0], Status.REGRESSED, id="less"),
        pytest.param([3060.0], Status.REGRESSED, id="twice"),
        pytest.param([1530.0, 1530.0, 3060.0], Status.REGRESSED, id="one-process-of-three"),
    ],
)
def test_twice_the_kernels_are_red_under_another_torch(measured: list[float], status: Status) -> None:
    now = {**STACK, "torch": "2.12.0"}
    assert _judge_kernels(measured, [1530.0], then=STACK, now=now).status is status


def test_package_that_one_side_lacks_is_another_version() -> None:
    verdict = _judge_kernels([1700.0], [1530.0], then={"torch": STACK["torch"]}, now=STACK)
    assert verdict.status is Status.PASS
    assert verdict.reason.startswith("on another stack than the baseline's (triton absent -> 3.6.0): ")


def _judge_tflop(measured: float, torch: str, *, uncounted: bool = False) -> Verdict:
    build = make_build({"step_tflop": measured})
    if uncounted:
        values = {name: value for name, value in build.values.items() if name != "step_tflop"}
        why = {"step_tflop": "nobody knows the work of aten::new_attention"}
        build = msgspec.structs.replace(build, values=values, uncounted=why)
    process = make_process(build=build, environment=make_environment(gpu=GPU, packages={"torch": torch}))
    run = make_run(FLUX_FP8, H100, processes=(process,))
    return judged("step_tflop", [], [60.0], run=run, provenance={"packages": {"torch": "2.13.0"}})


@pytest.mark.parametrize(
    ("measured", "torch", "status"),
    [
        pytest.param(60.0, "2.13.0", Status.PASS, id="the-same"),
        pytest.param(60.001, "2.13.0", Status.REGRESSED, id="a-little-more"),
        pytest.param(120.0, "2.13.0", Status.REGRESSED, id="twice"),
        pytest.param(62.9, "2.14.0", Status.PASS, id="another-torch"),
        pytest.param(120.0, "2.14.0", Status.REGRESSED, id="twice-under-another-torch"),
    ],
)
def test_work_of_a_step_is_exact_under_the_same_torch(measured: float, torch: str, status: Status) -> None:
    assert _judge_tflop(measured, torch).status is status


@pytest.mark.parametrize(
    ("measured", "diffusers", "status"),
    [
        pytest.param(24e9, "0.42.1", Status.PASS, id="the-same"),
        pytest.param(24e9 + 4, "0.42.1", Status.REGRESSED, id="one-value-more"),
        pytest.param(24e9 + 2**20, "0.43.0", Status.PASS, id="a-mebibyte-under-another-diffusers"),
        pytest.param(24.2e9, "0.43.0", Status.REGRESSED, id="a-block-more-under-another-diffusers"),
        pytest.param(23.8e9, "0.43.0", Status.REGRESSED, id="a-block-less-under-another-diffusers"),
    ],
)
def test_copied_bytes_are_exact_under_the_same_packages(
    measured: float, diffusers: str, status: Status
) -> None:
    """Which latents, times and texts a pipeline copies besides weights belongs to diffusers."""
    environment = make_environment(gpu=GPU, packages={"diffusers": diffusers})
    process = make_process(build=make_build({"h2d_bytes_per_image": measured}), environment=environment)
    run = make_run(FLUX_FP8, H100, processes=(process,))
    recorded = {"packages": {"diffusers": "0.42.1"}}
    assert judged("h2d_bytes_per_image", [], [24e9], run=run, provenance=recorded).status is status


@pytest.mark.parametrize(
    ("torch", "status"), [("2.14.0", Status.NOT_COMPARED), ("2.13.0", Status.INCONCLUSIVE)]
)
def test_operator_of_unknown_work_is_green_under_another_torch_only(torch: str, status: Status) -> None:
    verdict = _judge_tflop(60.0, torch, uncounted=True)
    assert (verdict.status, verdict.measured) == (status, None)
    assert "nobody knows the work of aten::new_attention" in verdict.reason


def test_value_that_another_stack_decides_alone_is_not_compared() -> None:
    metric = dataclasses.replace(metric_named("kernels_per_step"), elsewhere=None)
    verdict = judge_metric(
        metric,
        case=FLUX_FP8,
        platform=H100,
        run=run_of("kernels_per_step", [1700.0]),
        reference=None,
        accepted=make_accepted(
            make_entry({"kernels_per_step": [1530.0]}, case=FLUX_FP8), unit=H100_UUID, packages=STACK
        ),
        unit=H100_UUID,
        significance=make_significance(),
    )
    assert (verdict.status, verdict.measured, verdict.baseline) == (Status.NOT_COMPARED, 1700.0, None)
    assert verdict.reason.startswith(
        "not compared with the 1530 of the baseline, which holds only for the same torch and triton: torch "
    )


def _judge_time_ratio(measured: float, settings: dict[str, str]) -> Verdict:
    process = make_process(
        environment=make_environment(settings={"cpu_capability": "AVX2"}),
        samples=(make_sample({"latency_s": [measured]}),),
        twin_samples=(make_sample({"latency_s": [1.0]}),),
    )
    run = make_run(MINI_INT8WO, CPU, processes=(process,))
    return judged(
        "time_ratio_vs_fp32",
        [],
        [0.8],
        case=MINI_INT8WO,
        platform=CPU,
        run=run,
        entry={"digest": run.digest},
        provenance={"settings": settings},
    )


@pytest.mark.parametrize(
    ("measured", "recorded", "status"),
    [
        pytest.param(
            2.4, {"cpu_capability": "AVX512"}, Status.NOT_COMPARED, id="three-times-with-other-instructions"
        ),
        pytest.param(2.4, {"cpu_capability": "AVX2"}, Status.REGRESSED, id="three-times-with-the-same"),
        pytest.param(0.9, {"cpu_capability": "AVX2"}, Status.PASS, id="as-long-with-the-same"),
        pytest.param(2.4, {}, Status.REGRESSED, id="three-times-since-nobody-recorded-them"),
    ],
)
def test_time_against_fp32_is_compared_between_equal_processors_only(
    measured: float, recorded: dict[str, str], status: Status
) -> None:
    assert _judge_time_ratio(measured, recorded).status is status


def test_time_ratio_that_is_not_compared_names_the_instructions() -> None:
    assert _judge_time_ratio(2.4, {"cpu_capability": "AVX512"}).reason == (
        "not compared with the 0.8 of the baseline, which holds only for the same cpu_capability: "
        "cpu_capability AVX512 -> AVX2"
    )


def test_other_counters_are_compared_across_torch_versions() -> None:
    verdict = judged("graph_breaks", [1.0], [0.0], provenance={"packages": STACK})
    assert verdict.status is Status.REGRESSED


def test_kernels_without_a_baseline_or_a_count_are_not_green_under_another_torch() -> None:
    absent = make_entry({"graph_breaks": [0.0]}, case=FLUX_FP8)
    verdict = judge_metric(
        metric_named("kernels_per_step"),
        case=FLUX_FP8,
        platform=H100,
        run=run_of("kernels_per_step", [1530.0]),
        reference=None,
        accepted=make_accepted(absent, unit=H100_UUID, packages=STACK),
        unit=H100_UUID,
        significance=make_significance(),
    )
    assert (verdict.status, verdict.reason) == (Status.NO_BASELINE, "the baseline has no kernels_per_step")
    uncounted = make_run(
        FLUX_FP8,
        H100,
        processes=(make_process(build=msgspec.structs.replace(make_build(), values={"recompiles": 0.0})),),
    )
    verdict = judged("kernels_per_step", [], [1530.0], run=uncounted, provenance={"packages": STACK})
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason.endswith("the worker reported no kernels_per_step, only recompiles")


def test_missing_metric_is_inconclusive_and_named() -> None:
    verdict = judged("psnr_db", [], [30.0])
    assert (verdict.status, verdict.measured) == (Status.INCONCLUSIVE, None)
    assert "psnr_db of flux1-dev-b1-fp8dqrow-regional is missing" in verdict.reason


TUNED, UNTUNED = TunedChoices(hits=4, misses=1), TunedChoices(hits=0, misses=5)


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        pytest.param(
            ("loaded", "loaded"),
            Status.NOT_COMPARED,
            "every process loaded what it compiled or tuned from a file",
            id="all loaded",
        ),
        pytest.param(("saved", "loaded"), Status.INCONCLUSIVE, "is missing", id="one had to compile"),
        pytest.param((None, None), Status.INCONCLUSIVE, "is missing", id="no files"),
        pytest.param((TUNED, "loaded"), Status.NOT_COMPARED, "compiled or tuned", id="tuned or loaded"),
        pytest.param((UNTUNED, "loaded"), Status.INCONCLUSIVE, "is missing", id="one had to tune"),
    ],
)
def test_a_cold_compilation_that_is_missing_is_excused_where_all_processes_loaded_theirs(
    found: tuple[str | TunedChoices | None, ...], status: Status, reason: str
) -> None:
    run = make_run(FLUX_FP8, H100, processes=tuple(map(_warm, found)))

    verdict = judged("compile_cold_s", [], [20.0], run=run)

    assert (verdict.status, verdict.measured) == (status, None)
    assert reason in verdict.reason


def _warm(found: str | TunedChoices | None) -> Process:
    tuned, artifacts = (found, "saved") if isinstance(found, TunedChoices) else (None, found)
    cache = CompileCache(hits=6, misses=0, bypasses=0, artifacts=artifacts, tuned=tuned)
    return make_process(
        build=msgspec.structs.replace(make_build(), values={"compile_warm_s": 4.0}, cache=cache)
    )


def test_a_run_without_a_process_has_loaded_no_caches() -> None:
    assert not has_loaded_its_caches(make_run(FLUX_FP8, H100, processes=()))


def test_a_cold_compilation_is_judged_by_the_processes_that_had_one() -> None:
    cold = msgspec.structs.replace(make_build({"compile_cold_s": 50.0}), cache=COLD_CACHE)
    run = make_run(FLUX_FP8, H100, processes=(make_process(build=cold), _warm("loaded")))

    verdict = judged("compile_cold_s", [], [20.0], run=run)

    assert (verdict.status, verdict.measured) == (Status.REGRESSED, 50.0)


def test_speed_up_without_a_reference_is_inconclusive() -> None:
    verdict = judged("speedup_vs_bf16", [1.0], [2.0], reference=None)
    assert verdict.status is Status.INCONCLUSIVE
    assert "the bf16 reference was not measured" in verdict.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("metric", ["denoise_step_ms", "compiled_graphs"])
def test_number_that_is_not_finite_is_inconclusive(metric: str, value: float) -> None:
    assert judged(metric, [value], [100.0]).status is Status.INCONCLUSIVE


def test_case_without_an_entry_has_no_baseline() -> None:
    verdict = judged("denoise_step_ms", [100.0], None)
    assert (verdict.status, verdict.measured, verdict.baseline) == (Status.NO_BASELINE, 100.0, None)
    assert verdict.reason == "no baseline is recorded"


def test_entry_with_another_digest_is_no_baseline_and_both_digests_are_named() -> None:
    verdict = judged("denoise_step_ms", [100.0], [100.0], entry={"digest": "0123456789abcdef"})
    assert verdict.status is Status.NO_BASELINE
    assert "the case has changed since its baseline" in verdict.reason
    assert "0123456789ab then" in verdict.reason
    assert f"{FLUX_FP8.digest[:12]} now" in verdict.reason


def test_metric_that_the_entry_lacks_has_no_baseline() -> None:
    entry = make_entry({"decode_ms": [1.0]}, case=FLUX_FP8)
    verdict = judge_metric(
        metric_named("denoise_step_ms"),
        case=FLUX_FP8,
        platform=H100,
        run=run_of("denoise_step_ms", [1.0]),
        reference=None,
        accepted=make_accepted(entry),
        unit=H100_UUID,
        significance=make_significance(),
    )
    assert verdict.status is Status.NO_BASELINE
    assert verdict.reason == "the baseline has no denoise_step_ms"


@pytest.mark.parametrize("reason", sorted(SLOWDOWNS))
def test_throttled_sample_makes_the_run_invalid(reason: str) -> None:
    telemetry = make_telemetry(throttle_reasons=("SwPowerCap", reason))
    run = make_run(processes=(make_process(), make_process(samples=(make_sample(telemetry=telemetry),))))
    assert invalidity(run) == f"the GPU was throttled during process 2: {reason}"


def test_power_cap_alone_is_normal() -> None:
    run = make_run(processes=(make_process(samples=(make_sample(telemetry=make_telemetry()),)),))
    assert invalidity(run) is None


def test_foreign_process_on_the_gpu_makes_the_run_invalid() -> None:
    telemetry = make_telemetry(compute_processes=2)
    why = invalidity(make_run(processes=(make_process(samples=(make_sample(telemetry=telemetry),)),)))
    assert why is not None
    assert why.startswith("2 processes computed on the GPU during process 1")


def test_throttling_during_warm_up_does_not_count() -> None:
    telemetry = make_telemetry(throttle_reasons=("HwSlowdown",))
    assert (
        invalidity(make_run(processes=(make_process(warmups=(make_sample(telemetry=telemetry),)),))) is None
    )


HOT = make_sample(telemetry=make_telemetry(throttled_ms={"hw_thermal": 20.0}))


def _hot(run: Run) -> Run:
    """`run` with a throttled sample in its last process."""
    *others, last = run.processes
    hot = msgspec.structs.replace(last, samples=(*last.samples, HOT))
    return msgspec.structs.replace(run, processes=(*others, hot))


@pytest.mark.parametrize("metric", ["denoise_step_ms", "decode_ms", "speedup_vs_bf16", "peak_allocated_mib"])
def test_time_or_memory_of_an_invalid_run_is_neither_good_nor_bad(metric: str) -> None:
    verdict = judged(metric, [1.0], [1.0], run=_hot(run_of(metric, [1.0])))
    assert (verdict.status, verdict.measured, verdict.change_pct) == (Status.INVALID, None, None)
    assert verdict.reason == "the GPU was throttled during process 1: hw_thermal for 20 ms"


def test_counters_of_an_invalid_run_are_judged() -> None:
    assert judged("graph_breaks", [1.0], [0.0], run=_hot(run_of("graph_breaks", [1.0]))).status == "REGRESSED"


def test_speed_up_over_an_invalid_reference_is_invalid_and_the_time_is_not() -> None:
    reference = _hot(make_reference(FLUX_FP8, H100))
    verdict = judged("speedup_vs_bf16", [1.0], [1.0], reference=reference)
    assert verdict.status is Status.INVALID
    assert verdict.reason.startswith("of the reference flux1-dev-b1-bf16-regional, the GPU was throttled")
    assert judged("denoise_step_ms", [1.0], [1.0], reference=reference).status is Status.PASS


def _timed(step_ms: float, clock_mhz: float) -> Run:
    sample = make_sample({"denoise_step_ms": [step_ms], "mean_sm_clock_mhz": [clock_mhz]})
    return make_run(FLUX_FP8, H100, processes=(make_process(samples=(sample,)),) * 5)


def _judge_at_clock(step_ms: float, clock_mhz: float) -> Verdict:
    metrics = {"denoise_step_ms": [100.0] * 5, "mean_sm_clock_mhz": [1700.0] * 5}
    entry = make_entry(metrics, case=FLUX_FP8)
    return judge_metric(
        metric_named("denoise_step_ms"),
        case=FLUX_FP8,
        platform=H100,
        run=_timed(step_ms, clock_mhz),
        reference=None,
        accepted=make_accepted(entry, unit=H100_UUID),
        unit=H100_UUID,
        significance=make_significance(),
    )


def test_regression_that_vanishes_in_cycles_stays_one_and_says_so() -> None:
    verdict = _judge_at_clock(106.0, 1600.0)
    assert verdict.status is Status.REGRESSED
    assert verdict.reason.endswith(
        "; vanishes in cycles (-0.24 % at 1600 MHz, 1700 MHz in the baseline): "
        "the code burns more power, or the card ran slower"
    )


@pytest.mark.parametrize(("step_ms", "clock_mhz"), [(106.0, 1700.0), (100.0, 1600.0)])
def test_cycles_are_mentioned_with_no_other_verdict(step_ms: float, clock_mhz: float) -> None:
    assert "cycles" not in _judge_at_clock(step_ms, clock_mhz).reason
