"""The phases that generating and training share, and what each phase leaves behind for those after it."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from perf_tests.protocol import messages, reports
from perf_tests.tables.cases import Build
from perf_tests.tables.platforms import Device
from perf_tests.worker.faults import Faults
from perf_tests.worker.fidelity import trace
from perf_tests.worker.inspection import counters, offloading, probe, quantizing
from perf_tests.worker.inspection.compiled import packaged_blocks
from perf_tests.worker.measure import control, memory
from perf_tests.worker.measure.clock import CLOCKS
from perf_tests.worker.measure.generate import Stages, StepWork, settle
from perf_tests.worker.measure.telemetry import GpuMonitor
from perf_tests.worker.model import build, compile_cache, tuned_choices
from perf_tests.worker.model import compile as compiling
from perf_tests.worker.quantization import support


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

    def arm(self, values: Mapping[str, tuple[float, ...]], compiled: reports.MemoryWindow) -> None:
        """Arm the injected faults, once, with the values of an undisturbed sample and the peaks so far."""
        if not self.faults.armed:
            peaks = memory.peaks([compiled, self.meter.read()])
            self.faults.arm(values, peaks.get("peak_allocated_mib", peaks["peak_rss_mib"]))


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
    saving: offloading.SetUp | None
    """None for a recipe that saves no memory."""


@dataclasses.dataclass(kw_only=True, slots=True)
class CompiledWorkload:
    """What belongs to the workload that the pipeline was last compiled for."""

    before: counters.Counters
    """As they were just before: the process may have compiled for another workload."""
    window: reports.MemoryWindow
    """Of compiling."""
    graphs_after_warmup: int = 0
    guards_after_warmup: Counter[str] = dataclasses.field(default_factory=Counter)

    def warmed_up(self) -> None:
        """Whatever is compiled from now on is compiled again."""
        self.guards_after_warmup = counters.guard_failures()
        self.graphs_after_warmup = counters.read().since(self.before).graphs

    def counts(self) -> dict[str, float]:
        """Metric name -> what was compiled for this workload until now."""
        counted = counters.read().since(self.before)
        return {
            "compiled_graphs": counted.graphs,
            "graph_breaks": counted.graph_breaks,
            "recompiles": counted.graphs - self.graphs_after_warmup,
            "generated_kernels": counted.generated_kernels,
            "extern_calls": counted.extern_calls,
        }


def load(
    request: messages.Load, monitor: GpuMonitor | None, make: Callable[[torch.device], Any]
) -> tuple[LoadedPipeline, messages.Loaded]:
    """What `make` builds on the device, with what it is measured with; the controls come first.

    Raises WorkerError(unsupported) where the device lacks what the scheme needs.
    """
    device = torch.device(request.device)
    gpu = monitor if request.device is Device.CUDA else None
    support.check(request.case.build.recipe.scheme, device)
    meter = memory.Meter(device, gpu.used_mib if gpu else None)
    faults = Faults(request.injections, device)
    controls = control.measure(device, gpu)
    meter.reset()
    started_s = time.perf_counter()
    with quantizing.converted() as converted:
        pipeline = make(device)
    stages = Stages(CLOCKS[request.device](), faults.before_mark)
    stages.clock.synchronize()
    seconds = time.perf_counter() - started_s
    loaded = LoadedPipeline(
        pipeline=pipeline,
        device=device,
        weights=build.weight_digests(pipeline),
        stages=stages,
        meter=meter,
        faults=faults,
        gpu=gpu,
        values=controls,
        converted=converted,
    )
    window = loaded.end_window()
    return loaded, messages.Loaded(seconds=seconds, memory=window, weights=loaded.weights)


def compile(
    request: messages.Compile, loaded: LoadedPipeline, case_build: Build, prime: Callable[[], object]
) -> tuple[CompiledWorkload, messages.Compiled]:
    """Load packages, or compile, by running `prime`; reading artifacts is part of it, writing them is not."""
    compiles = case_build.recipe.compiles
    file = Path(request.artifacts) if request.artifacts and compiles else None
    began_empty = compiles and compile_cache.is_empty()
    before = counters.read()
    loaded.meter.reset()
    started_s = time.perf_counter()
    done = compile_cache.load(file) if file else None
    folder = Path(request.tuned) if request.tuned else None
    found = packaged_blocks.loaded(loaded.pipeline, case_build, request.packages, loaded.device)
    with tuned_choices.shared(folder, compiles=compiles) as tuned:
        compiling.apply(loaded.pipeline, case_build)
        prime()
    loaded.stages.clock.synchronize()
    seconds = time.perf_counter() - started_s
    counted = counters.read().since(before)
    settle()
    # Not released: what compiling and graph capture hold on to is part of every later peak.
    window = loaded.meter.read()
    if file and not done:
        done = compile_cache.save(file)
    loaded.meter.reset()
    spared = done == compile_cache.LOADED
    cache = counters.cache(counted, done, tuned.report(), began_empty=began_empty and not spared)
    compiled = CompiledWorkload(before=before, window=window)
    return compiled, messages.Compiled(
        seconds=seconds, memory=window, cache=cache if compiles else None, packages=found
    )
