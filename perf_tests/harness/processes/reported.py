"""What workers report, as a record holds it: values by metric name, files by their place in its folder."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from perf_tests.protocol.messages import Compiled, Inspected, Loaded, Phase, Quantized
from perf_tests.protocol.packages import CompiledHere
from perf_tests.protocol.reports import Arrays, BuiltTwin, Capture, MemoryWindow, Recorded, Sample
from perf_tests.tables.metrics.spec import STEP

WHOLE_PHASES = (Phase.IMPORT, Phase.LOAD, Phase.COMPILE, Phase.SWITCH_WORKLOAD, Phase.GENERATE)
"""Phases of which no part is a phase of its own."""


def phase_seconds(
    spent_s: Mapping[Phase, float], quantized: Quantized | None, inspected: Inspected | None, made_s: float
) -> dict[str, float]:
    """Phase -> host seconds, each second in one phase; without phases that took none.

    `spent_s` is how long the worker took to answer what was asked for the case, `made_s` what another one
    took to make its built twin. `quantized` and `inspected` are its answers, None where there was none.
    """
    plan = quantized.quantization.plan if quantized else None
    search_s = (plan.search_s or 0.0) if plan else 0.0
    recording_s = quantized.fidelity_s if quantized else 0.0
    comparing_s = inspected.fidelity_s if inspected else 0.0
    # With a search, it is the search that was asked for.
    quantizing_s = spent_s.get(Phase.QUANTIZE, 0.0) + spent_s.get(Phase.SEARCH, 0.0)
    seconds = {
        **{phase: spent_s.get(phase, 0.0) for phase in WHOLE_PHASES},
        Phase.QUANTIZE: quantizing_s - search_s - recording_s,
        Phase.SEARCH: search_s,
        Phase.FIDELITY: recording_s + comparing_s,
        Phase.INSPECT: spent_s.get(Phase.INSPECT, 0.0) - comparing_s,
        Phase.BUILT_TWIN: made_s,
    }
    return {phase.value: spent for phase, spent in seconds.items() if spent > 0}


def built_values(loaded: Loaded, quantized: Quantized | None) -> dict[str, float]:
    """Metric name -> value: the seconds of loading and quantizing, and their peaks on a GPU."""
    answered = {Phase.LOAD: loaded, Phase.QUANTIZE: quantized}
    values = {}
    for phase, reply in answered.items():
        if reply is None:
            continue
        values[f"{phase}_s"] = reply.seconds
        if reply.memory.allocated_mib is not None:
            values[f"{phase}_peak_allocated_mib"] = reply.memory.allocated_mib
        if reply.memory.reserved_mib is not None:
            values[f"{phase}_peak_reserved_mib"] = reply.memory.reserved_mib
    return values


def compile_values(compiled: Compiled | None) -> dict[str, float]:
    """The compile time as the metric of a cold or of a warm cache; of neither where the cache was mixed, or
    where nothing was compiled before but kernels were tuned."""
    if compiled is None or compiled.cache is None or compiled.cache.state == "mixed":
        return {}
    if compiled.cache.state == "cold" and compiled.cache.was_spared:
        return {}
    return {f"compile_{compiled.cache.state}_s": compiled.seconds}


def twin_values(
    twin: BuiltTwin, loaded: Loaded, quantized: Quantized, samples: Sequence[Sample]
) -> dict[str, float]:
    """Metric name -> value: how a case compares with its built twin, and what the file between them takes."""
    # What packages compute is rounded in another way.
    of_twin = [each.output_sha256 for each in samples if each.pair == 0 and twin.packages is None]
    values: dict[str, float] = {}
    if of_twin:
        values["outputs_unlike_built"] = float(sum(each != twin.output_sha256 for each in of_twin))
    if not twin.files:
        return values
    tensors = sum(" as " not in name for name in quantized.tensors)
    weight_bytes = quantized.state.components["transformer"].weight_bytes if quantized.state else None
    checkpoint_bytes = float(sum(twin.files.values()))
    values["checkpoint_bytes"] = checkpoint_bytes
    if tensors and weight_bytes is not None:
        values["checkpoint_overhead_bytes"] = (checkpoint_bytes - weight_bytes) / tensors
    built_s = math.fsum(twin.seconds.get(phase, 0.0) for phase in (Phase.LOAD, Phase.QUANTIZE))
    values["save_s"] = twin.seconds[Phase.SAVE]
    values["load_s_vs_built"] = loaded.seconds / built_s
    windows = tuple(twin.memory.values())
    for counter in ("allocated_mib", "rss_mib"):
        if (ratio := _peak_ratio(loaded.memory, windows, counter)) is not None:
            values[f"load_peak_{counter.removesuffix('_mib')}_vs_built"] = ratio
    return values


def package_values(
    twin: BuiltTwin, compiled: Compiled | None, warmups: Sequence[Sample], samples: Sequence[Sample]
) -> dict[str, float]:
    """Metric name -> value: what packages take, and how a case with them compares with its built twin, which
    compiles the same blocks itself."""
    if twin.packages is None or compiled is None or compiled.packages is None:
        return {}
    loaded = compiled.packages
    values = {
        "package_bytes": float(sum(twin.packages.files.values())),
        "export_s": twin.packages.export_s,
        "package_s": twin.packages.compile_s,
        "packaged_blocks": float(sum(loaded.blocks.values())),
        "package_load_s": loaded.seconds,
        "first_package_s": loaded.first_s,
    }
    if loaded.constant_mib:
        values["package_copied_share"] = loaded.added_mib / loaded.constant_mib
    if warmups:
        values["first_image_s"] = compiled.seconds + math.fsum(warmups[0].values["latency_s"])
    return {**values, **_values_vs_jit(twin.compiled, values, samples)}


def _values_vs_jit(
    here: CompiledHere | None, values: Mapping[str, float], samples: Sequence[Sample]
) -> dict[str, float]:
    if here is None:
        return {}
    found = {}
    if (first_image_s := values.get("first_image_s")) is not None:
        found["first_image_s_vs_jit"] = first_image_s / here.first_image_s
        if here.cached_first_image_s is not None:
            found["first_image_s_vs_cached"] = first_image_s / here.cached_first_image_s
    steps_ms = [ms for sample in samples for ms in sample.values[STEP]]
    if steps_ms and here.step_ms is not None:
        found["denoise_step_ms_vs_jit"] = statistics.median(steps_ms) / here.step_ms
    return found


def _peak_ratio(loaded: MemoryWindow, built: Sequence[MemoryWindow], counter: str) -> float | None:
    mine = getattr(loaded, counter)
    theirs = [mib for window in built if (mib := getattr(window, counter)) is not None]
    return mine / max(theirs) if mine is not None and theirs else None


def with_relative_files(recorded: Recorded | None, out: Path) -> Recorded | None:
    """`recorded`, its files relative to the run directory."""
    if recorded is None:
        return None
    arrays = relative_arrays(recorded.arrays, out)
    picture = recorded.picture and relative_capture(recorded.picture, out)
    return msgspec.structs.replace(recorded, arrays=arrays, picture=picture)


def relative_arrays(arrays: Arrays | None, out: Path) -> Arrays | None:
    """`arrays`, its file relative to the run directory."""
    return arrays and msgspec.structs.replace(arrays, file=os.path.relpath(out / arrays.file, out))


def relative_capture(capture: Capture, out: Path) -> Capture:
    """`capture`, its files relative to the run directory."""
    array, image = (os.path.relpath(out / name, out) for name in (capture.array, capture.image))
    return msgspec.structs.replace(capture, array=array, image=image)
