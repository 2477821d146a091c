"""Answers to what is asked after the last timed image: counts, sizes, and what the pipeline is like now."""

from __future__ import annotations

import msgspec

from perf_tests.protocol.messages import Fault, Inspect, Inspected
from perf_tests.protocol.offloading import MemorySaving, OffloadedComponent
from perf_tests.protocol.reports import SettingReport, StepReport
from perf_tests.tables.metrics.host_bound import is_busy_timed
from perf_tests.tables.metrics.spec import IDENTICAL_DB, STEP_BUSY
from perf_tests.tables.pipelines.spec import PROMPTS
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import Activity, CompileMode, Decoding
from perf_tests.unit.fake_worker import quantizing, training
from perf_tests.unit.fake_worker.generating import PEAK_MIB
from perf_tests.unit.fake_worker.pictures import NOISE, write_arrays
from perf_tests.unit.fake_worker.subject import BYTES_PER_MODULE, Subject

STEP_TFLOP = 1.0
STEP_BUSY_MS = 6.25
"""Of which a GPU computes in a denoise step that waits for the host."""
KERNELS = {"kernels_per_encode": 900.0, "kernels_per_step": 1530.0, "kernels_per_decode": 400.0}
OPERATORS = {"operators_per_encode": 1036.0, "operators_per_step": 2926.0, "operators_per_decode": 743.0}
QUANTIZING = {"operators_in_quantize": 4898.0, "quantize_peak_allocated_mib": 40.0}
ANCHORS = {
    "anchor_schedule": 0.0,
    "anchor_embeds_sqnr_db": 60.0,
    "anchor_sqnr_db": 60.0,
    "anchor_latents_sqnr_db": 60.0,
    "anchor_picture_sqnr_db": 60.0,
}
HOST_SAVING = {"host_weights_mib": 48.0, "offload_set_up_s": 0.25}
SAVING = {
    **HOST_SAVING,
    "encode_peak_allocated_mib": 20.0,
    "denoise_peak_allocated_mib": 90.0,
    "decode_peak_allocated_mib": 60.0,
    "resident_mib": 0.25,
    "host_pinned_mib": 0.0,
    "h2d_bytes_per_image": 5e7,
    "d2h_bytes_per_image": 4e7,
    "copies_under_kernels_pct": 12.5,
    "resident_vs_largest": 0.005,
    "h2d_vs_needed": 1.0,
}


def inspect(subject: Subject, request: Inspect) -> Inspected:
    """Report everything that is asked once."""
    recipe = subject.case.build.recipe
    peak_mib = PEAK_MIB * (1 + subject.amounts.get(Fault.MEMORY, 0.0) / 100)
    values = {**_sizes(subject), **_exact(subject), **_work(subject, peak_mib), **_of_recipe(subject)}
    values |= VALUES[subject.case.build.activity](subject)
    values.pop(subject.argument("missing-metric") or "", None)
    noise = NOISE if subject.quantized else 0.0
    if subject.has("dequantizes"):
        subject.groups = tuple(
            msgspec.structs.replace(each, subclass="Parameter", scale=None) for each in subject.groups
        )
    return Inspected(
        values={name: subject.reported(name, value) for name, value in values.items()},
        memory=subject.window(peak_mib),
        arrays=write_arrays(f"{request.trace}.timed.npz", noise) if request.trace else None,
        state=subject.state,
        step=_step(subject),
        settings=_settings(subject),
        memory_saving=_saving(subject) if recipe.saves_memory else None,
        training=training.report(subject) if subject.case.is_training else None,
        placement=None if subject.case.build.pipeline.generates else quantizing.placement(subject),
    )


# Figures


def _sizes(subject: Subject) -> dict[str, float]:
    modules = subject.case.build.pipeline.modules
    return {
        "weight_bytes": float(subject.weight_bytes),
        "model_memory_mib": subject.weight_bytes / 2**20,
        **{f"{name}_bytes": float(BYTES_PER_MODULE) for name in modules},
        "transformer_bytes": float(subject.weight_bytes),
    }


def _exact(subject: Subject) -> dict[str, float]:
    return {
        "quantized_modules": float(subject.quantized),
        "compiled_graphs": 2.0 if subject.compiles else 0.0,
        "graph_breaks": 0.0,
        "recompiles": 0.0,
        "distinct_prompt_embeddings": float(PROMPTS),
        "distinct_prompt_latents": 2.0,
        "unfused_attention_calls": 0.0,
        "step_tflop": STEP_TFLOP,
    }


def _work(subject: Subject, peak_mib: float) -> dict[str, float]:
    """What the device is counted to do, and the peaks."""
    host = {"peak_rss_mib": peak_mib}
    if subject.device is Device.CPU:
        return {**host, **OPERATORS, **(QUANTIZING if subject.quantized else {})}
    peaks = dict.fromkeys(("peak_allocated_mib", "peak_reserved_mib", "peak_device_mib"), peak_mib)
    busy = {STEP_BUSY: STEP_BUSY_MS} if is_busy_timed(subject.case) else {}
    return {**host, **peaks, **KERNELS, **busy}


def _of_recipe(subject: Subject) -> dict[str, float]:
    """What only some recipes have."""
    recipe, values = subject.case.build.recipe, dict[str, float]()
    sqnr_db = recipe.scheme.output_sqnr_db
    if subject.quantized:
        values["weight_bytes_vs_implied"] = 1.0
    if subject.probed and sqnr_db is not None:
        values["output_sqnr_db"] = (sqnr_db.low + sqnr_db.high) / 2
    if subject.case.is_reference:
        values |= ANCHORS
    if subject.compiles:
        values |= {"generated_kernels": 126.0, "extern_calls": 32.0}
    if recipe.saves_memory:
        values |= SAVING if subject.device is Device.CUDA else HOST_SAVING
    return values | _of_compiled_code(subject)


def _of_compiled_code(subject: Subject) -> dict[str, float]:
    """What there is of code that is replayed, or was compiled by another process."""
    recipe, values = subject.case.build.recipe, dict[str, float]()
    if recipe.replays and subject.device is Device.CUDA:
        launches = 0.0 if subject.has("records-no-graph") else 1.0
        values |= {"graph_launches_per_step": launches, "graph_sqnr_db": IDENTICAL_DB}
    if recipe.is_packaged:
        values["generated_kernels"] = 12.0 if subject.has("compiles-packages") else 0.0
        values["package_sqnr_db"] = -1.9 if subject.has("one-block-for-all") else 48.8
    return values


def _after_changes(subject: Subject) -> dict[str, float]:
    """What a change of shape costs, where there is any."""
    reshaping = subject.case.build.recipe.reshaping
    if reshaping is None:
        return {}
    return {
        "graphs_of_changes": 2.0 if reshaping.dynamic else 6.0,
        "graphs_on_return": 0.0,
        "eager_blocks_after_change": 0.0,
        "first_image_after_change_s": 12.5,
        "image_after_change_s": 0.5,
    }


VALUES = {
    Activity.GENERATING: _after_changes,
    Activity.TRAINING: training.values,
    Activity.QUANTIZING: quantizing.values,
}


# What the pipeline is like


def _step(subject: Subject) -> StepReport:
    eager = subject.case.build.recipe.compile is CompileMode.EAGER
    blocks = 4 if eager or subject.has("leaves-blocks-eager") else 0
    return StepReport(blocks={"Block": blocks}, attention={"_scaled_dot_product_flash": 4})


def _settings(subject: Subject) -> dict[str, SettingReport]:
    kernels = 0 if subject.has("ineffective-setting") else 7
    return {
        setting.id: SettingReport(
            inductor={name: str(value) for name, value in setting.inductor.items()},
            kernels=None if setting.kernels is None else kernels,
        )
        for setting in subject.case.build.recipe.settings
    }


def _saving(subject: Subject) -> MemorySaving:
    recipe, batch = subject.case.build.recipe, subject.case.workload.batch_size
    tiled = (recipe.decoding is Decoding.TILED) is not subject.has("decodes-otherwise")
    parts = batch if recipe.decoding is Decoding.SLICED else 1
    decodes = {"decode": 1, "_decode": parts, "tiled_decode": parts * tiled}
    if recipe.offload is None:
        return MemorySaving(set_up={}, final={}, decodes=decodes)
    moved = OffloadedComponent(
        hooks={recipe.offload.hook: 7},
        unmoved_bytes=0,
        bytes_on={recipe.offload.waits_on: BYTES_PER_MODULE},
    )
    final, kept = moved, subject.argument("keeps-weights")
    if subject.has("loses-hooks"):
        final = msgspec.structs.replace(moved, hooks={}, unmoved_bytes=BYTES_PER_MODULE)
    if kept is not None:
        final = msgspec.structs.replace(moved, bytes_on={kept: BYTES_PER_MODULE})
    names = subject.case.build.pipeline.modules
    return MemorySaving(
        set_up=dict.fromkeys(names, moved), final=dict.fromkeys(names, final), decodes=decodes
    )
