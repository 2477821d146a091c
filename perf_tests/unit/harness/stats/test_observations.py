from __future__ import annotations

import math

import msgspec
import pytest

from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Process, Status
from perf_tests.harness.stats.observations import observe
from perf_tests.unit.builders import (
    ORDINARY_GROUP,
    make_build,
    make_failure,
    make_layers,
    make_process,
    make_quantization,
    make_reference,
    make_run,
    make_sample,
    metric_named,
)


def _process(*steps_ms: float) -> Process:
    return make_process(samples=tuple(make_sample({"denoise_step_ms": [each]}) for each in steps_ms))


def _missing(metric: str, process: Process) -> str:
    observation = observe(metric_named(metric), make_run(processes=(process,)), make_reference())
    assert observation.values == ()
    assert observation.missing is not None
    return observation.missing


def test_samples_give_the_trimmed_mean_of_all_values_of_all_samples_per_process() -> None:
    first = make_process(
        samples=(
            make_sample({"denoise_step_ms": [1.0, 2.0]}),
            make_sample({"denoise_step_ms": [3.0, 50.0, 4.0]}),
        )
    )
    run = make_run(processes=(first, _process(7.0)))
    assert observe(metric_named("denoise_step_ms"), run, None).values == (3.0, 7.0)


def test_build_values_are_taken_as_the_worker_reported_them() -> None:
    run = make_run(processes=(make_process(build=make_build({"graph_breaks": 2.0})),))
    assert observe(metric_named("graph_breaks"), run, None).values == (2.0,)


def test_twin_ratio_is_the_median_of_paired_ratios_not_the_ratio_of_medians() -> None:
    process = make_process(
        samples=tuple(make_sample({"latency_s": [each]}) for each in (2.0, 4.0, 9.0)),
        twin_samples=tuple(make_sample({"latency_s": [each]}) for each in (1.0, 4.0, 3.0)),
    )
    run = make_run(processes=(process,))
    # Ratios 2, 1 and 3; the medians alone would give 4 / 3.
    assert observe(metric_named("time_ratio_vs_fp32"), run, None).values == (2.0,)


def test_twin_ratio_is_missing_where_a_twin_sample_is() -> None:
    process = make_process(samples=(make_sample(),) * 3, twin_samples=(make_sample(),) * 2)
    assert "3 samples do not pair up with 2 of the fp32 twin" in _missing("time_ratio_vs_fp32", process)


def test_reference_ratio_is_the_speed_up_over_the_geometric_mean_of_the_reference_processes() -> None:
    run = make_run(processes=(_process(50.0), _process(40.0)))
    reference = make_reference(processes=(_process(50.0), _process(200.0)))
    assert observe(metric_named("speedup_vs_bf16"), run, reference).values == pytest.approx((2.0, 2.5))


def test_reference_ratio_without_a_reference_is_missing() -> None:
    missing = observe(metric_named("speedup_vs_bf16"), make_run(), None).missing
    assert missing is not None
    assert "the bf16 reference was not measured" in missing


def test_reference_ratio_names_the_failure_of_the_reference() -> None:
    reference = make_reference(failure=make_failure(message="out of memory at 79 GiB"))
    missing = observe(metric_named("speedup_vs_bf16"), make_run(), reference).missing
    assert missing is not None
    assert "flux-mini-b1-bf16-eager failed: out of memory at 79 GiB" in missing


def test_reference_ratio_never_uses_a_reference_that_is_not_what_it_claims() -> None:
    reference = make_reference(status=Status.UNPROVEN, reason="no graph was compiled")
    missing = observe(metric_named("speedup_vs_bf16"), make_run(), reference).missing
    assert missing is not None
    assert "no graph was compiled" in missing


def test_outputs_are_counted_over_samples_and_not_over_warmups() -> None:
    process = make_process(
        warmups=(make_sample(output="w"),),
        samples=(make_sample(output="a"), make_sample(output="b"), make_sample(output="a")),
    )
    run = make_run(processes=(process,))
    assert observe(metric_named("distinct_outputs"), run, None).values == (2.0,)


def of_pairs(*outputs: tuple[int, str]) -> Process:
    samples = (msgspec.structs.replace(make_sample(output=output), pair=pair) for pair, output in outputs)
    return make_process(samples=tuple(samples))


def test_outputs_of_different_prompts_differ_and_are_not_counted_together() -> None:
    metric = metric_named("distinct_outputs")
    same = of_pairs((0, "a"), (1, "b"), (2, "c"), (0, "a"))
    other = of_pairs((0, "a"), (1, "b"), (2, "c"), (0, "z"))
    assert observe(metric, make_run(processes=(same,)), None).values == (1.0,)
    assert observe(metric, make_run(processes=(other,)), None).values == (2.0,)


def test_samples_that_repeat_nothing_do_not_pass_for_repeatable() -> None:
    missing = _missing("distinct_outputs", of_pairs((0, "a"), (1, "b"), (2, "c")))
    assert missing.endswith("its samples repeat no prompt and seed, and there are 3 of them")


def test_one_sample_does_not_pass_for_repeatable() -> None:
    missing = _missing("distinct_outputs", of_pairs((0, "a")))
    assert missing.endswith("its samples repeat no prompt and seed, and there are 1 of them")


def test_each_pair_has_its_own_value_and_five_steps_have_their_worst() -> None:
    fidelity = Fidelity(
        psnr_db=33.1,
        ssim=0.98,
        identical=False,
        pair_psnrs_db=(33.2, 33.1, 34.2, 33.3),
        pair_ssims=(0.99, 0.98, 0.99, 0.99),
        step_sqnrs_db=(16.3, 17.2, 15.9, 17.2, 18.1),
        latents_sqnr_db=23.9,
    )
    run = make_run(processes=(make_process(fidelity=fidelity), make_process(fidelity=None)))
    assert observe(metric_named("psnr_db"), run, None).values == (33.2, 33.1, 34.2, 33.3)
    assert observe(metric_named("ssim"), run, None).values == (0.99, 0.98, 0.99, 0.99)
    assert observe(metric_named("step_sqnr_db"), run, None).values == (15.9,)
    assert observe(metric_named("latents_sqnr_db"), run, None).values == (23.9,)


def test_transformer_that_was_not_asked_again_is_missing() -> None:
    process = make_process(fidelity=Fidelity(psnr_db=31.5, ssim=0.97, identical=False))
    assert "the transformer was not asked again: it has no step_sqnr_db" in _missing("step_sqnr_db", process)
    assert "it has no latents_sqnr_db" in _missing("latents_sqnr_db", process)


def test_noise_floor_is_read_from_a_compiled_reference() -> None:
    noise = Fidelity(psnr_db=47.8, ssim=0.9997, identical=False, step_sqnrs_db=(36.3, 35.8))
    run = make_run(processes=(make_process(noise=noise),))
    assert observe(metric_named("noise_psnr_db"), run, None).values == (47.8,)
    assert observe(metric_named("noise_step_sqnr_db"), run, None).values == (35.8,)


@pytest.mark.parametrize(
    ("metric", "worst"),
    [("layer_sqnr_db", 38.0), ("layer_gain", 0.99), ("layer_worst_row_sqnr_db", 12.0)],
)
def test_of_all_layers_the_worst_stands_for_a_process(metric: str, worst: float) -> None:
    layers = make_layers(sqnr_db=38.0, gain=0.99, worst_row_sqnr_db=12.0)
    run = make_run(processes=(make_process(build=make_build(layers=layers)),))
    assert observe(metric_named(metric), run, None).values == (worst,)


def test_layers_that_were_not_reported_are_missing() -> None:
    process = make_process(build=make_build(layers={}))
    assert "the worker reported 0 layers, and no layer_gain" in _missing("layer_gain", process)


def test_processes_without_a_capture_are_skipped_where_one_has_it() -> None:
    run = make_run(
        processes=(
            make_process(fidelity=Fidelity(psnr_db=31.5, ssim=0.97, identical=False)),
            make_process(fidelity=None),
        )
    )
    assert observe(metric_named("psnr_db"), run, None).values == (31.5,)
    assert observe(metric_named("ssim"), run, None).values == (0.97,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("psnr_mean_db", 36.0, id="mean"),
        pytest.param("psnr_p05_db", 33.0, id="percentile"),
        pytest.param("frame_difference_error", 0.02, id="difference"),
        pytest.param("flicker_ratio", 1.25, id="flicker"),
    ],
)
def test_what_a_video_has_is_read_from_its_comparison(name: str, value: float) -> None:
    fidelity = Fidelity(
        psnr_db=31.5,
        ssim=0.97,
        identical=False,
        psnr_mean_db=36.0,
        psnr_p05_db=33.0,
        frame_difference_error=0.02,
        flicker_ratio=1.25,
    )
    run = make_run(processes=(make_process(fidelity=fidelity),))
    assert observe(metric_named(name), run, None).values == (value,)


@pytest.mark.parametrize("identical", [False, True])
def test_what_only_a_video_has_is_missing_for_an_image_even_an_identical_one(identical: bool) -> None:
    build = make_build(quantization=make_quantization(ORDINARY_GROUP, expected_modules=0))
    process = make_process(build=build, fidelity=Fidelity(psnr_db=None, ssim=1.0, identical=identical))
    assert "the output is not a video" in _missing("psnr_mean_db", process)
    assert "it has no flicker_ratio" in _missing("flicker_ratio", process)


def test_fidelity_without_any_comparison_is_missing() -> None:
    assert "no output was compared" in _missing("ssim", make_process(fidelity=None))


def test_fidelity_names_the_failure_of_the_reference() -> None:
    run = make_run(processes=(make_process(fidelity=None),))
    missing = observe(metric_named("ssim"), run, make_reference(failure=make_failure())).missing
    assert missing is not None
    assert "failed: out of memory at 79 GiB" in missing


def test_image_identical_to_the_reference_is_no_psnr() -> None:
    process = make_process(fidelity=Fidelity(psnr_db=None, ssim=1.0, identical=True))
    assert "identical to the bf16 reference: psnr_db is infinite" in _missing("psnr_db", process)


def test_image_identical_to_the_reference_is_a_rounding_step_apart_where_nothing_is_quantized() -> None:
    build = make_build(quantization=make_quantization(ORDINARY_GROUP, expected_modules=0))
    process = make_process(build=build, fidelity=Fidelity(psnr_db=None, ssim=1.0, identical=True))
    values = observe(metric_named("psnr_db"), make_run(processes=(process,)), None).values
    assert values == pytest.approx((144.4944,), abs=1e-4)


def test_metric_missing_from_one_process_is_missing_and_says_what_was_reported() -> None:
    without = make_process(build=msgspec.structs.replace(make_build(), values={"recompiles": 0.0}))
    run = make_run(processes=(make_process(), without))
    missing = observe(metric_named("model_memory_mib"), run, None).missing
    assert missing == (
        "model_memory_mib of flux-mini-b1-int8wo-eager is missing: process 2: "
        "the worker reported no model_memory_mib, only recompiles"
    )


def test_one_process_is_enough_for_a_metric_that_says_so() -> None:
    cold = make_process(build=make_build({"compile_cold_s": 40.0}))
    warm = make_process(build=msgspec.structs.replace(make_build(), values={"compile_warm_s": 9.0}))
    run = make_run(processes=(cold, warm))
    assert observe(metric_named("compile_cold_s"), run, None).values == (40.0,)


def test_sample_without_the_metric_makes_it_missing() -> None:
    without = msgspec.structs.replace(make_sample(), values={"latency_s": (1.0,)})
    missing = _missing("decode_ms", make_process(samples=(make_sample(), without)))
    assert "a sample has no decode_ms, only latency_s" in missing


@pytest.mark.parametrize("metric", ["denoise_step_ms", "distinct_outputs", "time_ratio_vs_fp32"])
def test_process_without_samples_is_missing(metric: str) -> None:
    assert "it has no samples" in _missing(metric, make_process(samples=(), twin_samples=()))


def test_run_without_processes_is_missing() -> None:
    missing = observe(metric_named("latency_s"), make_run(processes=()), None).missing
    assert missing is not None
    assert "no process was measured" in missing


def test_compiled_reference_that_was_not_compared_with_itself_is_missing() -> None:
    missing = observe(metric_named("noise_psnr_db"), make_run(), None).missing
    assert missing is not None
    assert missing.endswith("no process was compared with itself before it was compiled")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_that_is_not_finite_is_missing_even_where_the_median_would_hide_it(value: float) -> None:
    process = make_process(samples=(make_sample({"denoise_step_ms": [1.0, 2.0, 3.0, value]}),))
    assert f"was reported as {value}" in _missing("denoise_step_ms", process)


def test_build_value_that_is_not_finite_is_missing() -> None:
    process = make_process(build=make_build({"weight_bytes": math.nan}))
    assert "weight_bytes is nan, not a finite number" in _missing("weight_bytes", process)


def test_twin_that_took_no_time_is_missing() -> None:
    twins = (make_sample({"latency_s": [0.0]}),) * 5
    assert "latency_s was reported as 0.0" in _missing("time_ratio_vs_fp32", make_process(twin_samples=twins))


def test_stall_does_not_move_the_statistic_of_a_process() -> None:
    steps = [100.0, 101.0, 99.0, 100.0, 100.5, 99.5, 100.0, 100.0]
    stalled = make_process(samples=(make_sample({"denoise_step_ms": [*steps, 750.0]}),))
    (value,) = observe(metric_named("denoise_step_ms"), make_run(processes=(stalled,)), None).values
    assert value == pytest.approx(100.143, abs=0.001)


@pytest.mark.parametrize("metric", ["denoise_step_ms", "speedup_vs_bf16"])
def test_time_of_nothing_has_no_relative_change(metric: str) -> None:
    run, reference = make_run(processes=(_process(0.0),)), make_reference(processes=(_process(0.0),))
    assert observe(metric_named(metric), run, reference).missing is not None
