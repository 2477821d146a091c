"""What each phase of a build leaves behind in a worker, for the phases after it."""

from __future__ import annotations

import dataclasses
import gc
from collections import Counter
from typing import Any

import torch

from perf_tests.protocol import reports
from perf_tests.worker.faults import Faults
from perf_tests.worker.fidelity import trace
from perf_tests.worker.inspection import counters, probe
from perf_tests.worker.measure import memory
from perf_tests.worker.measure.generate import Stages, StepWork
from perf_tests.worker.measure.telemetry import GpuMonitor


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPipeline:
    """What `Load` made: the pipeline, and what it is measured with from then on."""

    pipeline: Any
    device: torch.device
    weights: dict[str, str]
    """sha256 of a few named tensors."""
    stages: Stages
    meter: memory.Meter
    faults: Faults
    gpu: GpuMonitor | None
    """None on a CPU."""
    values: dict[str, float]
    """Metric name -> value: the controls."""
    converted: Counter[str] | None
    """What torchao has quantized by then; None where that cannot be counted."""

    def release(self) -> None:
        """Collect garbage, and give back what the allocator only caches."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def end_window(self) -> reports.MemoryWindow:
        """The memory window of the phase that ends here; releases what was only cached."""
        window = self.meter.read()
        self.release()
        return window


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UnquantizedPipeline:
    """What was recorded before anything was fused or quantized."""

    work: StepWork
    probe: probe.Probe | None
    """None where it was not asked for, and where nothing is to be quantized."""
    values: dict[str, float]
    """Metric name -> value: of a bf16 pipeline with an anchor, how close it comes to that."""
    traces: dict[str, trace.TransformerTrace]
    """By case id."""
    recorded: dict[str, reports.Recorded]
    """By case id: what the parent is told of `traces`."""
    recording_s: float
    """What the traces took."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedPipeline:
    """What is known of the build once it is quantized, for every workload."""

    work: StepWork
    values: dict[str, float]
    """Metric name -> value."""
    traces: dict[str, trace.TransformerTrace]
    """By case id; each is removed once it has been repeated."""


@dataclasses.dataclass(kw_only=True, slots=True)
class CompiledWorkload:
    """What belongs to the workload that the pipeline was last compiled for."""

    before: counters.Counters
    """As they were just before: the process may have compiled for another workload."""
    window: reports.MemoryWindow
    """Of compiling."""
    graphs_after_warmup: int = 0
    guards_after_warmup: Counter[str] = dataclasses.field(default_factory=Counter)
