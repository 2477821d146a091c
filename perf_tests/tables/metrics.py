"""TABLE: what is measured, in which unit, in which direction, and how much change is too much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.pipelines.rows import PIPELINES
from perf_tests.tables.platforms import Device
from perf_tests.tables.schemes.spec import Range


class Better(StrEnum):
    """The direction in which a metric improves."""

    LOWER = "lower"
    HIGHER = "higher"
    EXACT = "exact"
    """Neither: any difference from the baseline is a regression, beyond the tolerance where there is one."""


class Group(StrEnum):
    """The test that judges a metric: `test_<group>.py`."""

    LATENCY = "latency"
    MEMORY = "memory"
    COMPILE = "compile"
    QUANTIZATION = "quantization"
    FIDELITY = "fidelity"
    NUMERICS = "numerics"


class Reader(StrEnum):
    """Where the value of a process comes from."""

    SAMPLES = "samples"
    """The trimmed mean of all that the timed generations reported under the metric's name."""
    BUILD = "build"
    """What the worker reported once for the whole process, under the metric's name."""
    TWIN_RATIO = "twin-ratio"
    """Median over pairs of (this generation / the fp32 twin's generation beside it) of `of`."""
    REFERENCE_RATIO = "reference-ratio"
    """`of` of the bf16 reference / `of` of this case, as a speed-up."""
    OUTPUTS = "outputs"
    """How many different outputs the process's generations of one prompt and seed gave, at most."""
    LAYERS = "layers"
    """The layer that is worst in it; each layer of the transformer is held against itself in the baseline."""
    CAPTURE = "capture"
    """Comparison of what the first process gave with what the bf16 reference did, or what it was itself."""
    PAIRS = "pairs"
    """The same of each pair of prompt and seed: one value for each, in place of one for each process."""
    NOISE = "noise"
    """Comparison of the first process of a compiled bf16 reference with itself before it was compiled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """The larger of a relative (percent of the baseline) and an absolute (in the metric's unit) allowance."""

    relative_pct: float = 0.0
    absolute: float = 0.0

    def allowance(self, baseline: float) -> float:
        """The largest difference from `baseline` that is tolerated, in the metric's unit."""
        return max(abs(baseline) * self.relative_pct / 100.0, self.absolute)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """When a change of a metric is a failure, on one type of device."""

    tolerance: Tolerance = Tolerance()
    surprise: Tolerance | None = None
    """An improvement beyond this fails until it is blessed with a reason; None: no improvement does."""


EXACTLY = Gate()


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One measured quantity."""

    name: str
    unit: str
    better: Better
    group: Group
    reader: Reader
    gates: dict[Device, Gate]
    """The devices whose platforms gate it; on others it is shown."""
    of: str | None = None
    """For ratios: the metric they are formed from."""
    per_unit: bool = False
    """Whether the value belongs to one card or processor, so that another unit is judged at
    `Platform.unit_tolerance_pct`."""
    noisy: bool = False
    """Whether its processes are compared by a test that knows how far unchanged ones lie apart, and asks for
    more of them: its tolerance has no absolute part, so that only ratios count."""
    precise: bool = False
    """Whether a process is sampled until its own error is small beside the noise between processes."""
    drift_limit_pct: float | None = None
    """How far accepted baselines may move for the worse from the first one, where it is gated; None: it is
    not held against the first."""
    proven_only: bool = False
    """Not judged where the evidence contradicts the recipe: a time or memory of something else."""
    compiled_only: bool = False
    """Not judged for eager cases."""
    quantized_only: bool = False
    """Not judged for cases that are their own reference."""
    reference_only: bool = False
    """Not measured for cases that have a reference."""
    layers_only: bool = False
    """Not judged where no layer is quantized."""
    video_only: bool = False
    """Not measured for images."""
    cold_only: bool = False
    """Not judged in sessions that load compile caches from files."""
    planned: bool = False
    """Only shown where a search chooses the schemes: it follows from the plan then, against which it is
    judged as another metric."""
    some_processes: bool = False
    """Whether one process that reports it is enough: only the first compiles into an empty cache."""
    same_packages: tuple[str, ...] = ()
    """Packages whose version decides the value: against a baseline of another version of one of them it is
    only shown."""
    expected: Callable[[Case], Range | None] | None = None
    """The range that the tables imply for a case, which judges instead of a baseline; the metric is none
    of a case for which it is None."""


DRIFT_LIMIT_PCT: Final = 5.0
"""Of accepted baselines, all steps together: five of 1 % are too many."""
CONSTANT_STD: Final = 2 / 255
"""An output or one of its frames, of values in [0, 1], that varies by less is of a single colour."""
IDENTICAL_DB: Final = 20 * math.log10(2**24)
"""What stands for the infinite ratio of two identical signals: that of one rounding step of float32."""


ANCHORS: Final = {
    pipeline.id: Range(
        low=pipeline.anchor.low_db,
        high=IDENTICAL_DB,
        source=f"the rounding of bf16 leaves {pipeline.anchor.measured_db} dB, as threads and kernels vary",
    )
    for pipeline in PIPELINES
    if pipeline.anchor is not None
}
"""Pipeline -> SQNR of what its bf16 transformer answers first, against the committed anchor."""


def _anchored(case: Case) -> Range | None:
    anchored = case.is_reference and case.build.weights is Weights.SYNTHETIC
    return ANCHORS.get(case.build.pipeline.id) if anchored else None


def _output_sqnr_db(case: Case) -> Range | None:
    return case.build.recipe.scheme.output_sqnr_db


def _bytes_as_implied(case: Case) -> Range | None:
    scheme = case.build.recipe.scheme
    if scheme.config is None:
        return None
    source = "the schemes that the plan chose imply 1"
    if scheme.weight is not None:
        source = f"{scheme.weight.bits} bits an element and {scheme.weight.scale_bytes} bytes a scale imply 1"
    return Range(low=0.98, high=1.02, source=source)


def _scales_alike(_case: Case) -> Range:
    source = "two rows whose scales are 5 % apart and swapped are 4.8 % off"
    return Range(low=0.0, high=0.02, source=source)


def _as_planned(case: Case) -> Range | None:
    if case.build.recipe.scheme.search is None:
        return None
    return Range(low=0, high=0, source="every Linear module is to be what the plan chose for it")


BY_RANGE = Gate()
"""The gate of a metric that is judged by its expected range."""

METRICS = (
    Metric(
        name="denoise_step_ms",
        unit="ms",
        better=Better.LOWER,
        group=Group.LATENCY,
        reader=Reader.SAMPLES,
        gates={
            Device.CUDA: Gate(tolerance=Tolerance(relative_pct=0.75), surprise=Tolerance(relative_pct=10.0))
        },
        per_unit=True,
        noisy=True,
        precise=True,
        drift_limit_pct=DRIFT_LIMIT_PCT,
        proven_only=True,
    ),
    Metric(
        name="decode_ms",
        unit="ms",
        better=Better.LOWER,
        group=Group.LATENCY,
        reader=Reader.SAMPLES,
        gates={
            Device.CUDA: Gate(tolerance=Tolerance(relative_pct=2.0), surprise=Tolerance(relative_pct=20.0))
        },
        per_unit=True,
        noisy=True,
        drift_limit_pct=DRIFT_LIMIT_PCT,
        proven_only=True,
    ),
    Metric(
        name="speedup_vs_bf16",
        unit="x",
        better=Better.HIGHER,
        group=Group.LATENCY,
        reader=Reader.REFERENCE_RATIO,
        of="denoise_step_ms",
        gates={
            Device.CUDA: Gate(tolerance=Tolerance(relative_pct=1.5), surprise=Tolerance(relative_pct=10.0))
        },
        noisy=True,
        drift_limit_pct=DRIFT_LIMIT_PCT,
        proven_only=True,
        quantized_only=True,
    ),
    Metric(
        name="time_ratio_vs_fp32",
        unit="x",
        better=Better.LOWER,
        group=Group.LATENCY,
        reader=Reader.TWIN_RATIO,
        of="latency_s",
        # A shared two-core machine: only a change of kind (a kernel that fell back) is visible here.
        gates={Device.CPU: Gate(tolerance=Tolerance(relative_pct=75.0))},
        per_unit=True,
        proven_only=True,
    ),
    *(
        Metric(
            name=name,
            unit=unit,
            better=Better.LOWER,
            group=Group.LATENCY,
            reader=Reader.SAMPLES,
            gates={},
            per_unit=True,
            proven_only=True,
        )
        for name, unit in (
            ("latency_s", "s"),
            ("device_latency_s", "s"),
            ("encode_ms", "ms"),
            ("first_step_ms", "ms"),
        )
    ),
    *(
        Metric(
            name=name,
            unit=unit,
            better=better,
            group=Group.LATENCY,
            reader=reader,
            gates={},
            per_unit=True,
        )
        for name, unit, better, reader in (
            ("mean_sm_clock_mhz", "MHz", Better.HIGHER, Reader.SAMPLES),
            # Fixed kernels, timed before anything is built: a change is the machine's.
            ("control_gemm_ms", "ms", Better.LOWER, Reader.BUILD),
            ("control_attention_ms", "ms", Better.LOWER, Reader.BUILD),
            ("control_sm_clock_mhz", "MHz", Better.HIGHER, Reader.BUILD),
        )
    ),
    Metric(
        name="step_tflop",
        unit="TFLOP",
        better=Better.LOWER,
        group=Group.LATENCY,
        reader=Reader.BUILD,
        gates={},
    ),
    Metric(
        name="model_memory_mib",
        unit="MiB",
        better=Better.LOWER,
        group=Group.MEMORY,
        reader=Reader.BUILD,
        gates={
            device: Gate(tolerance=Tolerance(relative_pct=0.5), surprise=Tolerance(relative_pct=0.5))
            for device in Device
        },
        drift_limit_pct=DRIFT_LIMIT_PCT,
        proven_only=True,
    ),
    Metric(
        name="peak_allocated_mib",
        unit="MiB",
        better=Better.LOWER,
        group=Group.MEMORY,
        reader=Reader.BUILD,
        gates={
            Device.CUDA: Gate(
                tolerance=Tolerance(relative_pct=1.0, absolute=64.0),
                surprise=Tolerance(relative_pct=5.0, absolute=64.0),
            )
        },
        drift_limit_pct=DRIFT_LIMIT_PCT,
        proven_only=True,
    ),
    Metric(
        name="peak_reserved_mib",
        unit="MiB",
        better=Better.LOWER,
        group=Group.MEMORY,
        reader=Reader.BUILD,
        gates={
            Device.CUDA: Gate(
                tolerance=Tolerance(relative_pct=3.0, absolute=256.0),
                surprise=Tolerance(relative_pct=10.0, absolute=256.0),
            )
        },
        drift_limit_pct=DRIFT_LIMIT_PCT,
        proven_only=True,
    ),
    *(
        Metric(
            name=name,
            unit="MiB",
            better=Better.LOWER,
            group=Group.MEMORY,
            reader=Reader.BUILD,
            gates={},
            proven_only=True,
        )
        for name in ("peak_device_mib", "peak_rss_mib")
    ),
    *(
        Metric(
            name=name,
            unit="",
            better=Better.EXACT,
            group=Group.COMPILE,
            reader=Reader.BUILD,
            gates={Device.CPU: EXACTLY, Device.CUDA: EXACTLY},
        )
        for name in ("compiled_graphs", "graph_breaks", "recompiles")
    ),
    Metric(
        name="kernels_per_step",
        unit="",
        better=Better.EXACT,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        gates={Device.CUDA: EXACTLY},
        planned=True,
        # Inductor decides what is fused, and the libraries that come with torch how a GEMM is split.
        same_packages=("torch", "triton"),
    ),
    Metric(
        name="compile_cold_s",
        unit="s",
        better=Better.LOWER,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        # Host work, and hosts differ: a gate against doubled compile times, not against percents.
        gates={Device.CUDA: Gate(tolerance=Tolerance(relative_pct=60.0, absolute=10.0))},
        proven_only=True,
        compiled_only=True,
        cold_only=True,
        some_processes=True,
    ),
    Metric(
        name="compile_warm_s",
        unit="s",
        better=Better.LOWER,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        gates={},
        proven_only=True,
        compiled_only=True,
        some_processes=True,
    ),
    *(
        Metric(
            name=name,
            unit=unit,
            better=Better.EXACT,
            group=Group.QUANTIZATION,
            reader=Reader.BUILD,
            gates={Device.CPU: EXACTLY, Device.CUDA: EXACTLY},
            planned=True,
        )
        for name, unit in (("quantized_modules", ""), ("weight_bytes", "B"))
    ),
    Metric(
        name="psnr_db",
        unit="dB",
        better=Better.HIGHER,
        group=Group.FIDELITY,
        reader=Reader.PAIRS,
        # Of one pair; the mean of four may move by half of it.
        gates={device: Gate(tolerance=Tolerance(absolute=3.0)) for device in Device},
        quantized_only=True,
    ),
    Metric(
        name="ssim",
        unit="",
        better=Better.HIGHER,
        group=Group.FIDELITY,
        reader=Reader.PAIRS,
        gates={device: Gate(tolerance=Tolerance(absolute=0.03)) for device in Device},
        quantized_only=True,
    ),
    *(
        Metric(
            name=name,
            unit="dB",
            better=Better.HIGHER,
            group=Group.FIDELITY,
            reader=Reader.CAPTURE,
            # Unchanged code: 0.05 and 0.03 dB between three H100s, 0.12 and 0.09 dB between torch 2.12 and
            # 2.13 on CPU. A miniature is so close to bf16's own noise that it gets twice as much.
            gates={
                Device.CUDA: Gate(tolerance=Tolerance(absolute=absolute)),
                Device.CPU: Gate(tolerance=Tolerance(absolute=2 * absolute)),
            },
            quantized_only=True,
            planned=True,
        )
        for name, absolute in (("step_sqnr_db", 0.5), ("latents_sqnr_db", 1.0))
    ),
    *(
        Metric(
            name=name,
            unit=unit,
            better=Better.HIGHER,
            group=Group.FIDELITY,
            reader=Reader.NOISE,
            # What is fused, and so no longer rounded between, is the compiler's choice: 0.4 dB between torch
            # 2.12 and 2.13 on CPU. A fault that only compiled code has costs more, and its quantized twins,
            # compiled alike, do not see it.
            gates=dict.fromkeys(Device, Gate(tolerance=Tolerance(absolute=absolute))),
            compiled_only=True,
            reference_only=True,
        )
        for name, unit, absolute in (
            ("noise_step_sqnr_db", "dB", 3.0),
            ("noise_latents_sqnr_db", "dB", 3.0),
            ("noise_psnr_db", "dB", 3.0),
            ("noise_ssim", "", 0.03),
        )
    ),
    *(
        Metric(
            name=name,
            unit=unit,
            better=better,
            group=Group.FIDELITY,
            reader=Reader.CAPTURE,
            gates=dict.fromkeys(Device, Gate(tolerance=tolerance)) if tolerance else {},
            quantized_only=True,
            video_only=True,
        )
        for name, unit, better, tolerance in (
            ("psnr_mean_db", "dB", Better.HIGHER, Tolerance(absolute=1.5)),
            ("psnr_p05_db", "dB", Better.HIGHER, Tolerance(absolute=1.5)),
            ("frame_difference_error", "", Better.LOWER, Tolerance(relative_pct=20.0)),
            # 1 where the video moves as much as its reference: more is flicker, less is a frame that froze.
            ("flicker_ratio", "", Better.EXACT, None),
        )
    ),
    Metric(
        name="output_sqnr_db",
        unit="dB",
        better=Better.HIGHER,
        group=Group.NUMERICS,
        reader=Reader.BUILD,
        gates={Device.CPU: BY_RANGE},
        expected=_output_sqnr_db,
    ),
    Metric(
        name="anchor_sqnr_db",
        unit="dB",
        better=Better.HIGHER,
        group=Group.NUMERICS,
        reader=Reader.BUILD,
        gates=dict.fromkeys(Device, BY_RANGE),
        expected=_anchored,
    ),
    *(
        Metric(
            name=name,
            unit=unit,
            better=Better.EXACT,
            group=Group.FIDELITY,
            reader=Reader.LAYERS,
            gates={device: Gate(tolerance=Tolerance(absolute=absolute)) for device in Device},
            layers_only=True,
            planned=True,
        )
        for name, unit, absolute in (
            ("layer_sqnr_db", "dB", 0.1),
            ("layer_gain", "", 1e-3),
            ("layer_worst_row_sqnr_db", "dB", 1.0),
        )
    ),
    Metric(
        name="layer_scale_error",
        unit="",
        better=Better.LOWER,
        group=Group.FIDELITY,
        reader=Reader.LAYERS,
        gates=dict.fromkeys(Device, BY_RANGE),
        layers_only=True,
        expected=_scales_alike,
    ),
    Metric(
        name="weight_bytes_vs_implied",
        unit="x",
        better=Better.EXACT,
        group=Group.NUMERICS,
        reader=Reader.BUILD,
        gates={Device.CPU: BY_RANGE, Device.CUDA: BY_RANGE},
        expected=_bytes_as_implied,
    ),
    Metric(
        name="modules_off_plan",
        unit="",
        better=Better.EXACT,
        group=Group.NUMERICS,
        reader=Reader.BUILD,
        gates={Device.CPU: BY_RANGE, Device.CUDA: BY_RANGE},
        expected=_as_planned,
    ),
    Metric(
        name="distinct_outputs",
        unit="",
        better=Better.EXACT,
        group=Group.FIDELITY,
        reader=Reader.OUTPUTS,
        gates={Device.CPU: EXACTLY, Device.CUDA: EXACTLY},
    ),
)
