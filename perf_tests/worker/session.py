"""The life of one build: one method per request, in the order the parent asks."""

from __future__ import annotations

import gc
import time
from typing import Any

import torch

from perf_tests.harness import protocol
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device
from perf_tests.worker import build, capture, compile, counters, memory, quantize
from perf_tests.worker.clock import CLOCKS
from perf_tests.worker.faults import Faults
from perf_tests.worker.generate import Generation, Stages, generate_once, output_sha256, prime, settle
from perf_tests.worker.telemetry import GpuMonitor


class Session:
    """Holds one pipeline from Load to Inspect."""

    def __init__(self, monitor: GpuMonitor | None) -> None:
        self._monitor = monitor
        self._windows: dict[protocol.Phase, protocol.MemoryWindow] = {}
        self._values: dict[str, float] = {}
        self._graphs_after_warmup = 0
        self._armed = False

    def load(self, request: protocol.Load) -> protocol.Loaded:
        """Build the pipeline on the device."""
        self._case: Case = request.case
        self._device = torch.device(request.device)
        on_gpu = request.device is Device.CUDA and self._monitor is not None
        self._gpu = self._monitor if on_gpu else None
        self._meter = memory.Meter(self._device, self._gpu.used_mib if self._gpu else None)
        self._faults = Faults(request.injections, self._device)
        self._meter.reset()
        started_s = time.perf_counter()
        self._pipeline: Any = build.build(request.case.build, self._device)
        self._stages = Stages(CLOCKS[request.device](), self._faults.before_mark)
        self._stages.clock.synchronize()
        seconds = time.perf_counter() - started_s
        weights = build.weight_digests(self._pipeline)
        return protocol.Loaded(seconds=seconds, memory=self._close(protocol.Phase.LOAD), weights=weights)

    def quantize(self, request: protocol.Quantize) -> protocol.Quantized:
        """Fuse and quantize; then weigh what is left."""
        recipe = self._case.build.recipe
        self._meter.reset()
        started_s = time.perf_counter()
        evidence = quantize.apply(self._pipeline, self._case.build, drop=self._faults.dropped_modules)
        self._stages.clock.synchronize()
        seconds = time.perf_counter() - started_s
        window = self._close(protocol.Phase.QUANTIZE)
        self._values |= {
            "model_memory_mib": memory.model_mib(self._pipeline, self._device),
            "weight_bytes": memory.weight_bytes(self._pipeline, recipe.quantized_components),
            "quantized_modules": quantize.count_as_asked(evidence, recipe),
        }
        return protocol.Quantized(seconds=seconds, memory=window, quantization=evidence)

    def compile(self, request: protocol.Compile) -> protocol.Compiled:
        """Compile by generating for the first time."""
        before = counters.read()
        self._meter.reset()
        started_s = time.perf_counter()
        compile.apply(self._pipeline, self._case.build)
        prime(self._pipeline, self._case)
        self._stages.clock.synchronize()
        seconds = time.perf_counter() - started_s
        cache = counters.cache(before, counters.read()) if self._case.build.recipe.compiles else None
        settle()
        # Not emptied: what compiling and graph capture hold on to is part of every later peak.
        window = self._windows[protocol.Phase.COMPILE] = self._meter.read()
        self._meter.reset()
        return protocol.Compiled(seconds=seconds, memory=window, cache=cache)

    def generate(self, request: protocol.Generate) -> protocol.Generated:
        """Generate once."""
        if not request.warmup:
            self._faults.strike(self._pipeline)
        generation = generate_once(self._pipeline, self._case, self._stages)
        telemetry = self._gpu.read() if self._gpu else None
        self._meter.look()
        if request.warmup:
            self._warmed_up(generation)
        saved = capture.save(generation.output, request.capture) if request.capture else None
        sample = protocol.Sample(
            values=generation.values,
            output_sha256=output_sha256(generation.output),
            telemetry=telemetry,
        )
        return protocol.Generated(sample=sample, capture=saved)

    def inspect(self, request: protocol.Inspect) -> protocol.Inspected:
        """Everything that is known only now."""
        window = self._windows[protocol.Phase.GENERATE] = self._meter.read()
        now = counters.read()
        self._values |= {
            "compiled_graphs": now.graphs,
            "graph_breaks": now.graph_breaks,
            "recompiles": now.graphs - self._graphs_after_warmup,
            # Compiling is part of the peak: graphs capture their memory there, and replay invisibly.
            **memory.peaks([self._windows[protocol.Phase.COMPILE], window]),
        }
        return protocol.Inspected(values=self._values, memory=window)

    def _warmed_up(self, generation: Generation) -> None:
        self._graphs_after_warmup = counters.read().graphs
        if not self._armed:
            peaks = memory.peaks([self._windows[protocol.Phase.COMPILE], self._meter.read()])
            self._faults.arm(generation.values, peaks.get("peak_allocated_mib", peaks["peak_rss_mib"]))
            self._armed = True

    def _close(self, phase: protocol.Phase) -> protocol.MemoryWindow:
        """End a phase's window and give back what the allocator only caches."""
        window = self._windows[phase] = self._meter.read()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return window
