"""The life of one build: one method per request, in the order the parent asks."""

from __future__ import annotations

import dataclasses
import gc
import time
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from perf_tests.protocol import messages, reports
from perf_tests.protocol.errors import WorkerError
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.spec import Workload
from perf_tests.tables.platforms import Device
from perf_tests.worker.faults import Faults
from perf_tests.worker.fidelity import anchor, capture, layers, trace
from perf_tests.worker.measure import control, counters, kernels, memory, probe
from perf_tests.worker.measure.clock import CLOCKS
from perf_tests.worker.measure.generate import (
    Generation,
    Stages,
    count_step,
    generate_once,
    output_sha256,
    prime,
    settle,
)
from perf_tests.worker.measure.telemetry import GpuMonitor
from perf_tests.worker.model import build, compile, compile_cache
from perf_tests.worker.quantization import apply, autoquant, support
from perf_tests.worker.quantization.apply import Choose


class Session:
    """Holds one pipeline from Load to the last Inspect."""

    def __init__(self, monitor: GpuMonitor | None) -> None:
        self._monitor = monitor
        self._windows: dict[messages.Phase, reports.MemoryWindow] = {}
        self._values: dict[str, float] = {}
        self._graphs_after_warmup = 0
        self._armed = False
        self._traces: dict[str, trace.TransformerTrace] = {}

    def load(self, request: messages.Load) -> messages.Loaded:
        """Build the pipeline on the device."""
        self._case: Case = request.case
        self._device = torch.device(request.device)
        on_gpu = request.device is Device.CUDA and self._monitor is not None
        self._gpu = self._monitor if on_gpu else None
        support.check(request.case.build.recipe.scheme, self._device)
        self._meter = memory.Meter(self._device, self._gpu.used_mib if self._gpu else None)
        self._faults = Faults(request.injections, self._device)
        self._values |= control.measure(self._device, self._gpu)
        self._meter.reset()
        started_s = time.perf_counter()
        self._pipeline: Any = build.build(request.case.build, self._device)
        self._stages = Stages(CLOCKS[request.device](), self._faults.before_mark)
        self._stages.clock.synchronize()
        seconds = time.perf_counter() - started_s
        self._weights = build.weight_digests(self._pipeline)
        return messages.Loaded(
            seconds=seconds, memory=self._close(messages.Phase.LOAD), weights=self._weights
        )

    def quantize(self, request: messages.Quantize) -> messages.Quantized:
        """Fuse and quantize; then weigh what is left, and compare what it answers where that is asked."""
        recipe = self._case.build.recipe
        self._work = count_step(self._pipeline, self._case)
        asked = request.probe and recipe.scheme.config is not None
        before = probe.record(self._pipeline, self._case) if asked else None
        if self._case.is_reference:
            self._values |= self._anchored()
        recording_s = time.perf_counter()
        recorded = {each.case.id: self._recorded(each) for each in request.traces}
        recording_s = time.perf_counter() - recording_s
        # After all that computes: a workspace left behind would count as the model's memory.
        memory.clear_workspaces()
        self._release()
        self._meter.reset()
        started_s = time.perf_counter()
        evidence = apply.apply(
            self._pipeline,
            self._case.build,
            drop=self._faults.dropped_modules,
            choose=self._choose(request.plan) if recipe.scheme.search else None,
        )
        self._stages.clock.synchronize()
        seconds = time.perf_counter() - started_s
        if evidence.plan is not None:
            seconds -= evidence.plan.search_s or 0.0
            self._values["modules_off_plan"] = apply.count_off_plan(evidence, recipe)
        self._faults.rescale(self._pipeline)
        window = self._close(messages.Phase.QUANTIZE)
        self._values |= {
            "model_memory_mib": memory.model_mib(self._pipeline, self._device),
            "weight_bytes": memory.weight_bytes(self._pipeline, recipe.quantized_components),
            "quantized_modules": apply.count_as_asked(evidence, recipe),
        }
        if evidence.weights is not None:
            implied_bytes = apply.implied_bytes(evidence.weights)
            self._values["weight_bytes_vs_implied"] = self._values["weight_bytes"] / implied_bytes
        if before is not None:
            self._values["output_sqnr_db"] = before.sqnr_db(self._pipeline)
        started_s = time.perf_counter()
        compared = self._layer_errors() if request.layers and recipe.scheme.config is not None else {}
        return messages.Quantized(
            seconds=seconds,
            memory=window,
            quantization=evidence,
            layers=compared,
            recorded=recorded,
            fidelity_s=recording_s + time.perf_counter() - started_s if recorded or compared else 0.0,
        )

    def compile(self, request: messages.Compile) -> messages.Compiled:
        """Compile by generating for the first time; reading artifacts is part of it, writing them is not."""
        compiles = self._case.build.recipe.compiles
        file = Path(request.artifacts) if request.artifacts and compiles else None
        # The process may have compiled for another workload before.
        self._before = counters.read()
        self._meter.reset()
        started_s = time.perf_counter()
        done = compile_cache.load(file) if file else None
        compile.apply(self._pipeline, self._case.build)
        prime(self._pipeline, self._case)
        self._stages.clock.synchronize()
        seconds = time.perf_counter() - started_s
        counted = counters.read().since(self._before)
        settle()
        # Not emptied: what compiling and graph capture hold on to is part of every later peak.
        window = self._windows[messages.Phase.COMPILE] = self._meter.read()
        if file and not done:
            done = compile_cache.save(file)
        self._meter.reset()
        cache = counters.cache(counted, done) if compiles else None
        return messages.Compiled(seconds=seconds, memory=window, cache=cache)

    def generate(self, request: messages.Generate) -> messages.Generated:
        """Generate once."""
        if not request.warmup:
            self._faults.strike(self._pipeline)
        if self._gpu:
            self._gpu.begin()
        asked = dataclasses.replace(self._case, workload=self._case.workload.of_prompt(request.pair))
        generation = generate_once(self._pipeline, asked, self._stages)
        clocks = self._gpu.values() if self._gpu else {}
        telemetry = self._gpu.read() if self._gpu else None
        self._meter.look()
        if request.warmup:
            self._warmed_up(generation)
        saved = capture.save(generation.output, request.capture) if request.capture else None
        sample = reports.Sample(
            values=generation.values | clocks,
            output_sha256=output_sha256(generation.output),
            telemetry=telemetry,
            pair=request.pair,
        )
        return messages.Generated(sample=sample, capture=saved)

    def generate_beside(self, workload: Workload) -> Generation:
        """Generate another workload with what is compiled, apart from the case's record (for tools)."""
        return generate_once(self._pipeline, dataclasses.replace(self._case, workload=workload), self._stages)

    def switch_workload(self, request: messages.SwitchWorkload) -> messages.WorkloadSwitched:
        """Be as before Compile, for another workload of the build; what was built and its values stay.

        Raises WorkerError(load) for another build, and in a worker with an injected fault, which is armed
        for one workload.
        """
        if request.case.build != self._case.build:
            _refuse_switch(f"it holds the build of {self._case.id}, another build needs a worker of its own")
        if self._faults.injected:
            _refuse_switch("a fault is injected into it, and a fire drill is a worker of one case")
        started_s = time.perf_counter()
        self._case = request.case
        # Otherwise all workloads share the limit of graphs per function, beyond which dynamo runs eager.
        torch.compiler.reset()
        gc.unfreeze()
        memory.clear_workspaces()
        self._release()
        for phase in (messages.Phase.COMPILE, messages.Phase.GENERATE):
            self._windows.pop(phase, None)
        self._meter.reset()
        self._graphs_after_warmup = 0
        return messages.WorkloadSwitched(seconds=time.perf_counter() - started_s)

    def inspect(self, request: messages.Inspect) -> messages.Inspected:
        """Everything that is known only now."""
        window = self._windows[messages.Phase.GENERATE] = self._meter.read()
        counted = counters.read().since(self._before)
        values = self._values | {
            **self._work.values(self._case.workload),
            "compiled_graphs": counted.graphs,
            "graph_breaks": counted.graph_breaks,
            "recompiles": counted.graphs - self._graphs_after_warmup,
            # Compiling is part of the peak: graphs capture their memory there, and replay invisibly.
            **memory.peaks([self._windows[messages.Phase.COMPILE], window]),
        }
        started_s = time.perf_counter()
        arrays = self._repeated(request.trace) if request.trace else None
        fidelity_s = time.perf_counter() - started_s if arrays else 0.0
        if self._device.type == "cuda":
            # Last: it generates once more, and recording takes memory and time of its own.
            values |= kernels.measure(self._pipeline, self._case, self._stages.clock)
        return messages.Inspected(values=values, memory=window, arrays=arrays, fidelity_s=fidelity_s)

    def _recorded(self, asked: messages.Trace) -> reports.Recorded:
        recorded = self._traces[asked.case.id] = trace.record(self._pipeline, asked.case)
        picture = None
        if asked.case.is_reference and asked.case.build.recipe.compiles:
            generation = generate_once(self._pipeline, asked.case, self._stages)
            picture = capture.save(generation.output, f"{asked.stem}.eager")
        return reports.Recorded(arrays=trace.save(recorded, f"{asked.stem}.eager.npz"), picture=picture)

    def _repeated(self, stem: str) -> reports.Arrays:
        before = self._traces.pop(self._case.id)
        now = trace.repeat(self._pipeline, self._case, before, self._device)
        return trace.save(now, f"{stem}.timed.npz")

    def _layer_errors(self) -> dict[str, reports.LayerError]:
        twins = layers.twins(self._case.build, self._device)
        errors = layers.compare(self._pipeline, self._case, twins)
        memory.clear_workspaces()
        self._release()
        return errors

    def _anchored(self) -> dict[str, float]:
        anchored = anchor.load(self._case.build, self._weights)
        if anchored is None:
            return {}
        return {"anchor_sqnr_db": anchor.sqnr_db(anchored, anchor.observe(self._pipeline, self._case))}

    def _choose(self, file: str | None) -> Choose:
        if file is None:
            message = f"no file is named for the plan that {self._case.build.recipe.scheme.id} follows"
            kind, phase = messages.FailureKind.LOAD, messages.Phase.SEARCH
            raise WorkerError(messages.Failure(kind=kind, phase=phase, message=message))
        timer = autoquant.CallTimer(self._stages.clock, self._device)
        return partial(autoquant.choose, self._pipeline, self._case, Path(file), timer)

    def _warmed_up(self, generation: Generation) -> None:
        self._graphs_after_warmup = counters.read().since(self._before).graphs
        if not self._armed:
            peaks = memory.peaks([self._windows[messages.Phase.COMPILE], self._meter.read()])
            self._faults.arm(generation.values, peaks.get("peak_allocated_mib", peaks["peak_rss_mib"]))
            self._armed = True

    def _close(self, phase: messages.Phase) -> reports.MemoryWindow:
        """End a phase's window and give back what the allocator only caches."""
        window = self._windows[phase] = self._meter.read()
        self._release()
        return window

    def _release(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _refuse_switch(why: str) -> NoReturn:
    message = f"the worker cannot switch to another case: {why}"
    failure = messages.Failure(
        kind=messages.FailureKind.LOAD, phase=messages.Phase.SWITCH_WORKLOAD, message=message
    )
    raise WorkerError(failure)
