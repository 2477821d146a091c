from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from perf_tests.harness.verdicts.gates import gated_metrics, shown_metrics
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.rows import METRICS
from perf_tests.tables.metrics.spec import QUANTIZING, TRAINING, Group, Metric, Rule, Trait
from perf_tests.tables.pipelines.flux import FLUX1_DEV_SLIM
from perf_tests.tables.pipelines.rows import MINIATURES, PIPELINES
from perf_tests.tables.pipelines.sd3 import SD3_MINI
from perf_tests.tables.platforms import CPU, H100, Device, Platform
from perf_tests.tables.recipes import (
    LEAF_OFFLOAD,
    MODEL_OFFLOAD,
    OFFLOADS,
    SEQUENTIAL_OFFLOAD,
    CompileMode,
    Decoding,
    Loader,
    Offload,
    QuantizedOn,
    Recipe,
)
from perf_tests.tables.reshaping import Reshaping
from perf_tests.tables.schemes.rows import AUTOQUANT, BF16, FP16, INT8DQ_SPARSE24, INT8WO
from perf_tests.unit.builders import (
    FLUX_FP8,
    MINI_BF16,
    MINI_INT8WO,
    make_case,
)

MINI_BF16_COMPILED = make_case(compile=CompileMode.REGIONAL)
OF_OTHERS = {
    Trait.VIDEO,
    Trait.REFERENCE,
    Trait.LOADED,
    Trait.OFFLOADED,
    Trait.STREAMED,
    Trait.SAVES_MEMORY,
    Trait.PACKAGED,
    Trait.RESHAPED,
    Trait.BUSY_TIMED,
}
ANCHORED = {
    "anchor_schedule",
    "anchor_embeds_sqnr_db",
    "anchor_sqnr_db",
    "anchor_latents_sqnr_db",
    "anchor_picture_sqnr_db",
}


def test_metric_is_either_gated_or_shown_for_a_quantized_compiled_case() -> None:
    gated, shown = gated_metrics(FLUX_FP8, H100), shown_metrics(FLUX_FP8, H100)
    of_others = {
        "modules_off_plan",
        "text_encoder_3_bytes",
        "text_encoder_3_calls",
        "distinct_prompt_latents",
        "batch_psnr_db",
        *ANCHORED,
        "outputs_unlike_built",
        "checkpoint_overhead_bytes",
        "resident_vs_largest",
        "h2d_vs_needed",
        "package_sqnr_db",
        "graph_sqnr_db",
        "graph_launches_per_step",
        "package_copied_share",
        "graphs_on_return",
        "eager_blocks_after_change",
        "denoise_step_ms_vs_jit",
        *(m.name for m in METRICS if OF_OTHERS & {*m.only_for}),
        "quantize_peak_vs_needed",
        *(m.name for m in METRICS if m.activities in (TRAINING, QUANTIZING)),
    }
    named = sorted(metric.name for metric in METRICS if metric.name not in of_others)
    assert sorted(metric.name for metric in (*gated, *shown)) == named


def test_metric_that_follows_a_search_is_shown_and_another_judges_the_plan() -> None:
    case = make_case(scheme=AUTOQUANT)
    gated = {metric.name for metric in gated_metrics(case, CPU)}
    shown = {metric.name for metric in shown_metrics(case, CPU)}
    assert {"quantized_modules", "weight_bytes"} <= shown
    assert "kernels_per_step" in {metric.name for metric in shown_metrics(case, H100)}
    assert {"modules_off_plan", "weight_bytes_vs_implied", "graph_breaks"} <= gated
    assert not gated & shown


def test_a_cpu_judges_what_changes_between_calls_and_nothing_that_takes_several_samples() -> None:
    case = make_case(compile=CompileMode.REGIONAL, reshaping=Reshaping())
    on_cpu, on_gpu = ({metric.name for metric in gated_metrics(case, each)} for each in (CPU, H100))
    several = {"psnr_db", "step_sqnr_db", "distinct_outputs", "host_growth_mib_per_image"}
    assert {"graphs_of_changes", "graphs_on_return", "compiled_graphs"} <= on_cpu & on_gpu
    assert several <= on_gpu
    assert not (several | {"time_ratio_vs_fp32", "operators_per_step"}) & on_cpu


def test_platform_gates_the_metrics_that_name_its_device() -> None:
    names = {metric.name for metric in gated_metrics(MINI_INT8WO, CPU)}
    assert "time_ratio_vs_fp32" in names
    assert "denoise_step_ms" not in names
    assert "kernels_per_step" not in names
    assert "denoise_step_ms" in {metric.name for metric in shown_metrics(MINI_INT8WO, CPU)}


def test_eager_case_has_no_compile_times_but_has_compile_counters() -> None:
    case = make_case(FLUX_FP8.build.pipeline, scheme=INT8WO)
    names = {metric.name for metric in gated_metrics(case, H100, Group.COMPILE)}
    kernels = {"kernels_per_encode", "kernels_per_step", "kernels_per_decode"}
    assert names == {"compiled_graphs", "graph_breaks", "recompiles"} | kernels
    assert "compile_warm_s" not in {metric.name for metric in shown_metrics(case, H100)}


def test_reference_is_not_compared_with_itself() -> None:
    names = {metric.name for metric in gated_metrics(MINI_BF16, CPU, Group.FIDELITY)}
    assert names == {"distinct_outputs"}


def test_fused_bf16_case_is_compared_with_the_unfused_reference() -> None:
    names = {metric.name for metric in gated_metrics(make_case(fuse_qkv=True), CPU, Group.FIDELITY)}
    assert names == {"psnr_db", "ssim", "step_sqnr_db", "latents_sqnr_db", "distinct_outputs"}


@pytest.mark.parametrize("platform", [CPU, H100], ids=lambda platform: platform.id)
def test_compiled_reference_is_compared_with_itself_before_compiling(platform: Platform) -> None:
    names = {metric.name for metric in gated_metrics(MINI_BF16_COMPILED, platform, Group.FIDELITY)}
    noise = {"noise_step_sqnr_db", "noise_latents_sqnr_db", "noise_psnr_db", "noise_ssim"}
    assert names == {*noise, "distinct_outputs"}


def test_group_holds_the_metrics_of_one_test_file() -> None:
    metrics = gated_metrics(MINI_INT8WO, CPU, Group.QUANTIZATION)
    assert [metric.name for metric in metrics] == [
        "quantized_modules",
        "weight_bytes",
        "transformer_bytes",
        "text_encoder_bytes",
        "text_encoder_2_bytes",
        "vae_bytes",
    ]


FLUX_SPARSE = FLUX_FP8.with_recipe(dataclasses.replace(FLUX_FP8.build.recipe, scheme=INT8DQ_SPARSE24))


def test_speed_up_of_an_unsteady_scheme_may_halve() -> None:
    (gate,) = _gate_of("speedup_vs_bf16", FLUX_SPARSE).gates.values()
    assert gate.tolerance.relative_pct == 50.0


def test_step_of_an_unsteady_scheme_alone_is_not_tested() -> None:
    noisy = [metric.name for metric in gated_metrics(FLUX_SPARSE, H100) if metric.is_noisy]
    assert noisy == ["decode_ms"]
    assert [metric.name for metric in gated_metrics(FLUX_FP8, H100) if metric.is_noisy] == [
        "denoise_step_ms",
        "decode_ms",
        "speedup_vs_bf16",
    ]


OFFLOADED = FLUX_FP8.with_recipe(Recipe(scheme=BF16, offload=MODEL_OFFLOAD))


@pytest.mark.parametrize(
    ("mode", "rule", "allowed_pct"),
    [
        pytest.param(CompileMode.REGIONAL, Rule.EXACT, 0.0, id="as-inductor-decides"),
        pytest.param(CompileMode.MAX_AUTOTUNE, Rule.WITHIN_TOLERANCE, 30.0, id="by-timing"),
    ],
)
def test_kernels_that_each_process_chooses_by_timing_are_not_counted_exactly(
    mode: CompileMode, rule: Rule, allowed_pct: float
) -> None:
    # The same model on two H200s, tuned by each: 982 kernels a step and 1004.
    count = _gate_of("kernels_per_step", FLUX_FP8.with_recipe(Recipe(scheme=BF16, compile=mode)))
    assert count.rule is rule
    assert count.gates[Device.CUDA].tolerance.relative_pct == allowed_pct


def test_decoding_that_waits_for_copies_of_weights_has_a_wide_limit() -> None:
    decode = _gate_of("decode_ms", OFFLOADED)
    (gate,) = decode.gates.values()
    assert (gate.tolerance.relative_pct, gate.tolerance.absolute, gate.surprise) == (60.0, 50.0, None)
    assert (decode.is_noisy, decode.drift_limit_pct) == (False, None)
    assert _gate_of("denoise_step_ms", OFFLOADED).is_noisy
    (of_resident,) = _gate_of("decode_ms", FLUX_FP8).gates.values()
    assert of_resident.tolerance.relative_pct == 2.0


@pytest.mark.parametrize("offload", [SEQUENTIAL_OFFLOAD, LEAF_OFFLOAD], ids=lambda each: each.id)
def test_steps_that_copy_weights_have_a_wide_limit(offload: Offload) -> None:
    copying = FLUX_FP8.with_recipe(Recipe(scheme=BF16, offload=offload))
    step, speedup = (_gate_of(name, copying) for name in ("denoise_step_ms", "speedup_vs_bf16"))
    limits = [next(iter(each.gates.values())).tolerance.relative_pct for each in (step, speedup)]
    assert limits == [60.0, 37.5]
    assert [each.name for each in (step, speedup) if each.is_noisy or each.precise] == []


def _gate_of(name: str, case: Case) -> Metric:
    (found,) = (metric for metric in gated_metrics(case, H100) if metric.name == name)
    return found


COUNTED = {
    "transformer_calls",
    "text_encoder_calls",
    "text_encoder_2_calls",
    "decode_calls",
    "distinct_prompt_embeddings",
    "unfused_attention_calls",
}
"""What is judged of every case of FLUX."""


def test_expected_range_applies_only_where_the_scheme_implies_one() -> None:
    def names(case: Case, platform: Platform) -> set[str]:
        return {metric.name for metric in gated_metrics(case, platform, Group.NUMERICS)}

    assert names(MINI_INT8WO, CPU) == {*COUNTED, "output_sqnr_db", "weight_bytes_vs_implied"}
    assert names(FLUX_FP8, H100) == {*COUNTED, "weight_bytes_vs_implied"}
    assert names(MINI_BF16, CPU) == {*COUNTED, *ANCHORED, "distinct_prompt_latents"}
    assert names(make_case(scheme=FP16), CPU) == COUNTED


def test_pictures_of_a_batch_are_compared_where_there_are_several() -> None:
    several = dataclasses.replace(MINI_INT8WO.workload, batch_size=2)
    batch = dataclasses.replace(MINI_INT8WO, workload=several)
    names = {metric.name for metric in gated_metrics(batch, CPU)}
    assert names - {metric.name for metric in gated_metrics(MINI_INT8WO, CPU)} == {"batch_psnr_db"}


def test_anchor_is_committed_for_every_miniature_and_for_the_slim_pipeline_of_full_width() -> None:
    anchored = [spec.id for spec in PIPELINES if spec.anchor]
    assert sorted(anchored) == sorted((*(spec.id for spec in MINIATURES), FLUX1_DEV_SLIM.id))


def test_bytes_are_judged_of_the_components_that_a_pipeline_has() -> None:
    names = {metric.name for metric in gated_metrics(MINI_INT8WO, CPU, Group.QUANTIZATION)}
    of_sd3 = {metric.name for metric in gated_metrics(make_case(SD3_MINI), CPU, Group.QUANTIZATION)}
    assert "text_encoder_3_bytes" not in names
    assert "text_encoder_3_bytes" in of_sd3


def test_case_that_loads_leaves_its_numbers_and_pictures_to_its_built_twin() -> None:
    loaded = make_case(scheme=INT8WO, loader=Loader.TORCH_SAVE)
    gated, shown = ({m.name for m in of(loaded, CPU)} for of in (gated_metrics, shown_metrics))
    assert {"checkpoint_bytes", "checkpoint_overhead_bytes", "outputs_unlike_built"} <= gated
    assert {"save_s", "load_s_vs_built", "load_peak_rss_vs_built"} <= shown
    others = {"psnr_db", "layer_sqnr_db", "output_sqnr_db", "time_ratio_vs_fp32", "quantize_s", "step_tflop"}
    assert not others & (gated | shown)


@pytest.mark.parametrize(
    "changes", [{"loader": Loader.TORCH_SAVE}, {"quantized_on": QuantizedOn.HOST}], ids=["loaded", "on host"]
)
def test_what_an_image_leaves_behind_is_judged_wherever_there_are_several(changes: dict[str, Any]) -> None:
    twinned = make_case(scheme=INT8WO, **changes)
    grows = {"leaked_mib_per_image", "host_growth_mib_per_image"}
    assert grows <= {metric.name for metric in gated_metrics(twinned, H100)}
    assert not grows & {metric.name for metric in gated_metrics(twinned, CPU)}
    assert grows <= {metric.name for metric in gated_metrics(MINI_INT8WO, CPU)}


def test_case_that_builds_has_no_metric_of_loading() -> None:
    judged = {m.name for m in (*gated_metrics(MINI_INT8WO, CPU), *shown_metrics(MINI_INT8WO, CPU))}
    assert not {name for name in judged if name.startswith("checkpoint_") or name.endswith("_built")}


def test_case_that_is_quantized_elsewhere_is_judged_by_what_quantizing_takes() -> None:
    elsewhere = make_case(scheme=INT8WO, quantized_on=QuantizedOn.MODULE)
    gated = {metric.name for metric in gated_metrics(elsewhere, H100)}
    assert {
        "quantize_s",
        "quantize_peak_allocated_mib",
        "quantize_peak_reserved_mib",
        "outputs_unlike_built",
    } <= gated
    assert not {"psnr_db", "layer_sqnr_db", "checkpoint_bytes"} & gated


PEAKS_OF_STAGES = {"encode_peak_allocated_mib", "denoise_peak_allocated_mib", "decode_peak_allocated_mib"}
OF_OFFLOADING = {
    "resident_mib",
    "host_pinned_mib",
    "host_weights_mib",
    "h2d_bytes_per_image",
    "d2h_bytes_per_image",
    "resident_vs_largest",
    "h2d_vs_needed",
}


@pytest.mark.parametrize("offload", OFFLOADS, ids=lambda each: each.id)
def test_case_that_offloads_is_judged_by_what_is_where_and_what_moves(offload: Offload) -> None:
    offloaded = make_case(scheme=INT8WO, offload=offload)
    gated, shown = ({m.name for m in of(offloaded, H100)} for of in (gated_metrics, shown_metrics))
    assert PEAKS_OF_STAGES | OF_OFFLOADING | {"outputs_unlike_built"} <= gated
    assert "offload_set_up_s" in shown
    assert not {"psnr_db", "layer_sqnr_db"} & (gated | shown)


@pytest.mark.parametrize(
    ("offload", "gated"), [(MODEL_OFFLOAD, False), (SEQUENTIAL_OFFLOAD, False), (LEAF_OFFLOAD, True)]
)
def test_copies_are_hidden_by_a_stream_of_their_own_alone(offload: Offload, gated: bool) -> None:
    """Where nothing is hidden, less cannot be: a gate would be green whatever happened."""
    offloaded = make_case(scheme=INT8WO, offload=offload)
    found = {m.name for of in (gated_metrics, shown_metrics) for m in of(offloaded, H100)}
    assert ("copies_under_kernels_pct" in found) is gated
    assert ("copies_under_kernels_pct" in {m.name for m in gated_metrics(offloaded, H100)}) is gated


def test_case_that_tiles_is_compared_and_has_the_peaks_of_its_stages_alone() -> None:
    gated = {metric.name for metric in gated_metrics(make_case(decoding=Decoding.TILED), H100)}
    assert PEAKS_OF_STAGES | {"psnr_db", "ssim"} <= gated
    assert not OF_OFFLOADING & gated


def test_case_that_is_resident_has_no_metric_of_saving_memory() -> None:
    judged = {m.name for m in (*gated_metrics(FLUX_FP8, H100), *shown_metrics(FLUX_FP8, H100))}
    assert not judged & (PEAKS_OF_STAGES | OF_OFFLOADING)


def test_where_host_and_device_are_one_only_the_weights_are_weighed() -> None:
    offloaded = make_case(scheme=INT8WO, offload=SEQUENTIAL_OFFLOAD)
    names = {metric.name for metric in gated_metrics(offloaded, CPU)}
    assert names & (PEAKS_OF_STAGES | OF_OFFLOADING) == {"host_weights_mib"}
