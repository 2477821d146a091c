"""TABLE: what is measured, in which units, in which direction, and how much change is too much."""

from __future__ import annotations

import operator
from typing import Final

from perf_tests.tables.metrics import expected
from perf_tests.tables.metrics.spec import (
    STEP,
    Better,
    Gate,
    Group,
    Metric,
    Reader,
    Rule,
    Tolerance,
    Trait,
)
from perf_tests.tables.platforms import Device

DRIFT_LIMIT_PCT: Final = 5.0
"""Of all accepted changes together: five steps of 1 % are too many."""

BY_RULE = Gate()
"""The gate of a metric whose rule needs no tolerance."""
BY_RULE_EVERYWHERE = dict.fromkeys(Device, BY_RULE)


def _off_one(gain: float) -> float:
    return abs(gain - 1)


METRICS = (
    *(
        Metric(
            name=name,
            units="ms",
            better=Better.LOWER,
            group=Group.LATENCY,
            reader=Reader.SAMPLES,
            rule=Rule.NOISY,
            gates={Device.CUDA: Gate(tolerance=tolerance, surprise=surprise)},
            per_unit=True,
            precise=name == STEP,
            drift_limit_pct=DRIFT_LIMIT_PCT,
            verified_only=True,
        )
        for name, tolerance, surprise in (
            (STEP, Tolerance(relative_pct=0.75), Tolerance(relative_pct=10.0)),
            ("decode_ms", Tolerance(relative_pct=2.0), Tolerance(relative_pct=20.0)),
        )
    ),
    Metric(
        name="speedup_vs_bf16",
        units="x",
        better=Better.HIGHER,
        group=Group.LATENCY,
        reader=Reader.REFERENCE_RATIO,
        of=STEP,
        rule=Rule.NOISY,
        gates={
            Device.CUDA: Gate(tolerance=Tolerance(relative_pct=1.5), surprise=Tolerance(relative_pct=10.0))
        },
        drift_limit_pct=DRIFT_LIMIT_PCT,
        verified_only=True,
        only_for=(Trait.COMPARED,),
    ),
    Metric(
        name="time_ratio_vs_fp32",
        units="x",
        better=Better.LOWER,
        group=Group.LATENCY,
        reader=Reader.TWIN_RATIO,
        of="latency_s",
        # A shared two-core machine: only a change of kind (a kernel that fell back) is visible here.
        gates={Device.CPU: Gate(tolerance=Tolerance(relative_pct=75.0))},
        per_unit=True,
        verified_only=True,
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.LOWER,
            group=Group.LATENCY,
            reader=Reader.SAMPLES,
            gates={},
            per_unit=True,
            verified_only=True,
        )
        for name, units in (
            ("latency_s", "s"),
            ("device_latency_s", "s"),
            ("encode_ms", "ms"),
            ("first_step_ms", "ms"),
        )
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=better,
            group=Group.LATENCY,
            reader=reader,
            gates={},
            per_unit=True,
        )
        for name, units, better, reader in (
            ("mean_sm_clock_mhz", "MHz", Better.HIGHER, Reader.SAMPLES),
            # Fixed kernels, timed before anything is built: a change is the machine's.
            ("control_gemm_ms", "ms", Better.LOWER, Reader.BUILD),
            ("control_attention_ms", "ms", Better.LOWER, Reader.BUILD),
            ("control_sm_clock_mhz", "MHz", Better.HIGHER, Reader.BUILD),
        )
    ),
    Metric(
        name="step_tflop",
        units="TFLOP",
        better=Better.LOWER,
        group=Group.LATENCY,
        reader=Reader.BUILD,
        gates={},
    ),
    Metric(
        name="model_memory_mib",
        units="MiB",
        better=Better.LOWER,
        group=Group.MEMORY,
        reader=Reader.BUILD,
        gates={
            device: Gate(tolerance=Tolerance(relative_pct=0.5), surprise=Tolerance(relative_pct=0.5))
            for device in Device
        },
        drift_limit_pct=DRIFT_LIMIT_PCT,
        verified_only=True,
    ),
    *(
        Metric(
            name=name,
            units="MiB",
            better=Better.LOWER,
            group=Group.MEMORY,
            reader=Reader.BUILD,
            gates={Device.CUDA: Gate(tolerance=tolerance, surprise=surprise)},
            drift_limit_pct=DRIFT_LIMIT_PCT,
            verified_only=True,
        )
        for name, tolerance, surprise in (
            (
                "peak_allocated_mib",
                Tolerance(relative_pct=1.0, absolute=64.0),
                Tolerance(relative_pct=5.0, absolute=64.0),
            ),
            (
                "peak_reserved_mib",
                Tolerance(relative_pct=3.0, absolute=256.0),
                Tolerance(relative_pct=10.0, absolute=256.0),
            ),
        )
    ),
    *(
        Metric(
            name=name,
            units="MiB",
            better=Better.LOWER,
            group=Group.MEMORY,
            reader=Reader.BUILD,
            gates={},
            verified_only=True,
        )
        for name in ("peak_device_mib", "peak_rss_mib")
    ),
    *(
        Metric(
            name=name,
            units="",
            better=Better.EXACT,
            group=Group.COMPILE,
            reader=Reader.BUILD,
            rule=Rule.EXACT,
            gates=BY_RULE_EVERYWHERE,
        )
        for name in ("compiled_graphs", "graph_breaks", "recompiles")
    ),
    Metric(
        name="kernels_per_step",
        units="",
        better=Better.EXACT,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        rule=Rule.EXACT,
        gates={Device.CUDA: BY_RULE},
        follows_search=True,
        # Inductor decides what is fused, and the libraries that come with torch how a GEMM is split.
        same_packages=("torch", "triton"),
    ),
    Metric(
        name="compile_cold_s",
        units="s",
        better=Better.LOWER,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        # Host work, and hosts differ: a gate against doubled compile times, not against percents.
        gates={Device.CUDA: Gate(tolerance=Tolerance(relative_pct=60.0, absolute=10.0))},
        verified_only=True,
        only_for=(Trait.COMPILED,),
        cold_caches_only=True,
        some_processes=True,
    ),
    Metric(
        name="compile_warm_s",
        units="s",
        better=Better.LOWER,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        gates={},
        verified_only=True,
        only_for=(Trait.COMPILED,),
        some_processes=True,
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.EXACT,
            group=Group.QUANTIZATION,
            reader=Reader.BUILD,
            rule=Rule.EXACT,
            gates=BY_RULE_EVERYWHERE,
            follows_search=True,
        )
        for name, units in (("quantized_modules", ""), ("weight_bytes", "B"))
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.HIGHER,
            group=Group.FIDELITY,
            reader=Reader.PAIRS,
            field=field,
            rule=Rule.PER_PAIR,
            # Of one pair; the mean of four may move by half of it.
            gates=dict.fromkeys(Device, Gate(tolerance=Tolerance(absolute=absolute))),
            only_for=(Trait.COMPARED,),
        )
        for name, field, units, absolute in (
            ("psnr_db", "pair_psnrs_db", "dB", 3.0),
            ("ssim", "pair_ssims", "", 0.03),
        )
    ),
    *(
        Metric(
            name=name,
            units="dB",
            better=Better.HIGHER,
            group=Group.FIDELITY,
            reader=Reader.CAPTURE,
            field=field,
            # Unchanged code: 0.05 and 0.03 dB between three H100s, 0.12 and 0.09 dB between torch 2.12 and
            # 2.13 on CPU. A miniature is so close to bf16's own noise that it gets twice as much.
            gates={
                Device.CUDA: Gate(tolerance=Tolerance(absolute=absolute)),
                Device.CPU: Gate(tolerance=Tolerance(absolute=2 * absolute)),
            },
            only_for=(Trait.COMPARED,),
            follows_search=True,
        )
        for name, field, absolute in (
            ("step_sqnr_db", "step_sqnrs_db", 0.5),
            ("latents_sqnr_db", "latents_sqnr_db", 1.0),
        )
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.HIGHER,
            group=Group.FIDELITY,
            reader=Reader.NOISE,
            field=field,
            # What is fused, and so no longer rounded between, is the compiler's choice: 0.4 dB between torch
            # 2.12 and 2.13 on CPU. A fault that only compiled code has costs more, and its quantized twins,
            # compiled alike, do not see it.
            gates=dict.fromkeys(Device, Gate(tolerance=Tolerance(absolute=absolute))),
            only_for=(Trait.COMPILED, Trait.REFERENCE),
        )
        for name, field, units, absolute in (
            ("noise_step_sqnr_db", "step_sqnrs_db", "dB", 3.0),
            ("noise_latents_sqnr_db", "latents_sqnr_db", "dB", 3.0),
            ("noise_psnr_db", "psnr_db", "dB", 3.0),
            ("noise_ssim", "ssim", "", 0.03),
        )
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=better,
            group=Group.FIDELITY,
            reader=Reader.CAPTURE,
            field=name,
            rule=rule,
            gates=dict.fromkeys(Device, Gate(tolerance=tolerance)) if tolerance else {},
            only_for=(Trait.COMPARED, Trait.VIDEO),
        )
        for name, units, better, rule, tolerance in (
            ("psnr_mean_db", "dB", Better.HIGHER, Rule.WITHIN_TOLERANCE, Tolerance(absolute=1.5)),
            ("psnr_p05_db", "dB", Better.HIGHER, Rule.WITHIN_TOLERANCE, Tolerance(absolute=1.5)),
            ("frame_difference_error", "", Better.LOWER, Rule.WITHIN_TOLERANCE, Tolerance(relative_pct=20.0)),
            # 1 where the video moves as much as its reference: more is flicker, less is a frame that froze.
            ("flicker_ratio", "", Better.EXACT, Rule.EXACT, None),
        )
    ),
    *(
        Metric(
            name=name,
            units="dB",
            better=Better.HIGHER,
            group=Group.NUMERICS,
            reader=Reader.BUILD,
            rule=Rule.EXPECTED_RANGE,
            expected=implied,
            gates=gates,
        )
        for name, implied, gates in (
            ("output_sqnr_db", expected.output_sqnr_db, {Device.CPU: BY_RULE}),
            ("anchor_sqnr_db", expected.anchor_sqnr_db, BY_RULE_EVERYWHERE),
        )
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.EXACT,
            group=Group.FIDELITY,
            reader=Reader.LAYERS,
            field=field,
            badness=badness,
            rule=Rule.PER_LAYER,
            gates=dict.fromkeys(Device, Gate(tolerance=Tolerance(absolute=absolute))),
            only_for=(Trait.QUANTIZED,),
            follows_search=True,
        )
        for name, field, units, badness, absolute in (
            ("layer_sqnr_db", "sqnr_db", "dB", operator.neg, 0.1),
            ("layer_gain", "gain", "", _off_one, 1e-3),
            ("layer_worst_row_sqnr_db", "worst_row_sqnr_db", "dB", operator.neg, 1.0),
        )
    ),
    Metric(
        name="layer_scale_error",
        units="",
        better=Better.LOWER,
        group=Group.FIDELITY,
        reader=Reader.LAYERS,
        field="scale_error",
        badness=float,
        rule=Rule.EXPECTED_OF_LAYERS,
        expected=expected.layer_scale_error,
        gates=BY_RULE_EVERYWHERE,
        only_for=(Trait.QUANTIZED,),
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.EXACT,
            group=Group.NUMERICS,
            reader=Reader.BUILD,
            rule=Rule.EXPECTED_RANGE,
            expected=implied,
            gates=BY_RULE_EVERYWHERE,
        )
        for name, units, implied in (
            ("weight_bytes_vs_implied", "x", expected.weight_bytes_vs_implied),
            ("modules_off_plan", "", expected.modules_off_plan),
        )
    ),
    Metric(
        name="distinct_outputs",
        units="",
        better=Better.EXACT,
        group=Group.FIDELITY,
        reader=Reader.OUTPUTS,
        rule=Rule.EXACT,
        gates=BY_RULE_EVERYWHERE,
    ),
)

METRIC_BY_NAME = {metric.name: metric for metric in METRICS}
UNITS = {metric.name: metric.units for metric in METRICS}
"""Metric name -> what is printed after its values."""
NOISY = frozenset(metric.name for metric in METRICS if metric.is_noisy)
PAIRED = frozenset(metric.name for metric in METRICS if metric.reader is Reader.PAIRS)
"""Those with a value for each pair of prompt and seed, not for each process."""
