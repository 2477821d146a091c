"""What a process has built, as `run.json` holds it."""

from __future__ import annotations

import msgspec

from perf_tests.protocol.base import Struct
from perf_tests.protocol.offloading import MemorySaving, Placement
from perf_tests.protocol.reports import (
    BuiltTwin,
    CompileCache,
    LayerError,
    MemoryWindow,
    PipelineState,
    Quantization,
    SettingReport,
    StepReport,
)
from perf_tests.protocol.training import TrainingReport


class BuildReport(Struct):
    """What a worker built, with what the build checks need."""

    seconds: dict[str, float]
    """Phase -> seconds."""
    memory: dict[str, MemoryWindow]
    """Phase -> peaks during it."""
    weights: dict[str, str]
    """sha256 of a few named tensors before quantization."""
    quantization: Quantization | None
    """None where the process did not get that far."""
    cache: CompileCache | None
    """None for eager pipelines."""
    values: dict[str, float]
    """Metric name -> value of the whole process."""
    roofline_ms: float | None = None
    """Milliseconds that a denoise step takes at least; None where its work was not counted or the platform
    states no peak."""
    guard_failures: tuple[str, ...] = ()
    """Why dynamo compiled again after the first warm-up, in its own words."""
    layers: dict[str, LayerError] = msgspec.field(default_factory=dict)
    """Qualified name -> error of each quantized layer of the transformer; empty where it was not measured."""
    state: PipelineState | None = None
    """Once it was quantized; None in older records."""
    final_state: PipelineState | None = None
    """After the last timed generation; None in older records."""
    step: StepReport | None = None
    """What ran in a step of the timed pipeline; None in older records."""
    settings: dict[str, SettingReport] | None = None
    """What became of each of the recipe's settings, by id; None in older records."""
    uncounted: dict[str, str] = msgspec.field(default_factory=dict)
    """Metric name -> why this stack cannot count it."""
    tensors: dict[str, str] = msgspec.field(default_factory=dict)
    """Qualified name -> the first 16 hex digits of the sha256 of each tensor of the quantized components, and
    of what a tensor subclass knows beyond its tensors; only of a case with a built twin."""
    converted: int | None = None
    """Modules that torchao has quantized in this process; None where that was not counted."""
    built_twin: BuiltTwin | None = None
    """None for a case without one, and where it was not made."""
    memory_saving: MemorySaving | None = None
    """None for a recipe that saves none."""
    training: TrainingReport | None = None
    """None for a case that does not train."""
    placement: Placement | None = None
    """None for a case that generates or trains."""
