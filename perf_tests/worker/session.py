"""The life of one build in a worker: one method per request, in the order in which the parent asks."""

from __future__ import annotations

import dataclasses
import gc
import time
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch

from perf_tests.protocol import messages, reports
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.profiles import Profile, Profiled, Snapshot, Snapshotted
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.host_bound import is_busy_timed
from perf_tests.tables.pipelines.spec import Workload
from perf_tests.tables.platforms import Device
from perf_tests.worker import phases
from perf_tests.worker.fidelity import anchor, anchor_files, anchor_recording, capture, layers, trace
from perf_tests.worker.inspection import (
    busy_time,
    counters,
    kernels,
    observed_step,
    offloading,
    probe,
    prompts,
    quantizing,
    reshaping,
    setting_effects,
)
from perf_tests.worker.inspection.compiled import graphed, packaged_blocks
from perf_tests.worker.inspection.evidence import memory_history, step_profile
from perf_tests.worker.measure import memory
from perf_tests.worker.measure.generate import (
    Generation,
    count_step,
    generate_once,
    output_sha256,
    prime,
    run_step,
)
from perf_tests.worker.measure.telemetry import GpuMonitor
from perf_tests.worker.model.compiled import packages
from perf_tests.worker.phases import (
    CompiledWorkload,
    LoadedPipeline,
    QuantizedPipeline,
    UnquantizedPipeline,
)
from perf_tests.worker.quantization import apply, autoquant, checkpoint, layer_timing, state
from perf_tests.worker.quantization.apply import Choose


class WorkerSession:
    """Holds one pipeline from `Load` to the last `Inspect`.

    Each of the three phases that build leaves one value behind, which the later requests read.
    """

    _case: Case
    _loaded: LoadedPipeline
    _quantized: QuantizedPipeline
    _compiled: CompiledWorkload

    def __init__(self, monitor: GpuMonitor | None) -> None:
        self._monitor = monitor

    def load(self, request: messages.Load) -> messages.Loaded:
        """Build the pipeline on the device."""
        self._case = request.case
        make = partial(checkpoint.made, request.case.build, request.checkpoint)
        self._loaded, reply = phases.load(request, self._monitor, make)
        return reply

    def quantize(self, request: messages.Quantize) -> messages.Quantized:
        """Fuse and quantize, measure what is left, and compare its answers where that is asked for."""
        loaded, recipe = self._loaded, self._case.build.recipe
        drop, device = loaded.faults.dropped_modules, loaded.device
        choose = self._choose(request.plan) if recipe.scheme.search else None
        before = self._record_unquantized(request)
        # After everything that computes: a workspace left behind would count as the model's memory.
        memory.clear_workspaces()
        apply.move_to_host(loaded.pipeline, self._case.build)
        loaded.release()
        loaded.meter.reset()
        started_s = time.perf_counter()
        counting = quantizing.counting(loaded.pipeline, recipe, device)
        with quantizing.converted() as converted, counting as counted:
            report = apply.apply(loaded.pipeline, self._case.build, drop=drop, choose=choose, device=device)
        loaded.stages.clock.synchronize()
        seconds = time.perf_counter() - started_s
        if report.plan is not None:
            seconds -= report.plan.search_s or 0.0
        loaded.faults.rescale(loaded.pipeline)
        window = loaded.end_window()
        values = before.values | counted | state.values(loaded.pipeline, device, report, recipe)
        if before.probe is not None:
            values["output_sqnr_db"] = before.probe.sqnr_db(loaded.pipeline)
        started_s = time.perf_counter()
        compared = self._layer_errors() if request.layers and recipe.scheme.config is not None else {}
        comparing_s = time.perf_counter() - started_s
        answer = messages.Quantized(
            seconds=seconds,
            memory=window,
            quantization=report,
            layers=compared,
            recorded=before.recorded,
            fidelity_s=before.recording_s + comparing_s if before.recorded or compared else 0.0,
            state=state.read(loaded.pipeline, self._case.build),
            tensors=state.hashes(loaded.pipeline, recipe.quantized_components) if request.tensors else {},
            converted=quantizing.total(loaded.converted, converted),
        )
        # Last: from here on, weights need not be where anything but a call can use them.
        saving = offloading.set_up(loaded.pipeline, self._case, device, loaded.stages.clock)
        self._quantized = QuantizedPipeline(
            work=before.work, values=values, traces=before.traces, saving=saving
        )
        return answer

    def save(self, request: messages.Save) -> messages.Saved:
        """Save what is quantized, for a worker that loads it."""
        loaded, folder = self._loaded, Path(request.folder)
        seconds, files = checkpoint.save(loaded.pipeline, request.case.build, folder, loaded.device)
        return messages.Saved(seconds=seconds, files=files)

    def package(self, request: messages.Package) -> messages.Packaged:
        """Package the repeated blocks, for a worker that loads them."""
        pipeline, case = self._loaded.pipeline, self._case
        made = packages.make(pipeline, case.build, partial(run_step, pipeline, case), Path(request.folder))
        return messages.Packaged(packages=made)

    def compile(self, request: messages.Compile) -> messages.Compiled:
        """Load packages, or compile by generating for the first time."""
        pipeline, case = self._loaded.pipeline, self._case
        self._compiled, reply = phases.compile(
            request, self._loaded, case.build, lambda: prime(pipeline, case)
        )
        return reply

    def generate(self, request: messages.Generate) -> messages.Generated:
        """Generate once."""
        loaded = self._loaded
        if not request.warmup:
            loaded.faults.strike(loaded.pipeline)
        if loaded.gpu:
            loaded.gpu.begin()
        asked = dataclasses.replace(self._case, workload=self._case.workload.of_prompt(request.pair))
        generation = generate_once(loaded.pipeline, asked, loaded.stages)
        clocks = loaded.gpu.values() if loaded.gpu else {}
        telemetry = loaded.gpu.read() if loaded.gpu else None
        loaded.meter.look()
        if request.warmup:
            self._warmed_up(generation)
        saved = capture.save(generation.output, request.capture) if request.capture else None
        values, digest = generation.values | clocks, output_sha256(generation.output)
        del generation  # what is live after that is the pipeline's
        sample = reports.Sample(
            values=values | memory.live_mib(loaded.device),
            output_sha256=digest,
            telemetry=telemetry,
            pair=request.pair,
        )
        return messages.Generated(sample=sample, capture=saved)

    def generate_other(self, workload: Workload) -> Generation:
        """Generate another workload with what is compiled, outside the case's record (for tools)."""
        other = dataclasses.replace(self._case, workload=workload)
        return generate_once(self._loaded.pipeline, other, self._loaded.stages)

    def switch_workload(self, request: messages.SwitchWorkload) -> messages.WorkloadSwitched:
        """Return to the state before Compile, for another workload of the build, which stays as it is.

        Raises WorkerError(load) for another build, and in a worker with an injected fault, which is armed
        for one workload.
        """
        loaded = self._loaded
        if request.case.build != self._case.build:
            _refuse_switch(f"it holds the build of {self._case.id}, another build needs a worker of its own")
        if loaded.faults.injected:
            _refuse_switch("a fault is injected into it, and a fire drill is a worker of one case")
        started_s = time.perf_counter()
        self._case = request.case
        # Otherwise all workloads share the limit of graphs per function, beyond which dynamo runs eager.
        torch.compiler.reset()
        gc.unfreeze()
        memory.clear_workspaces()
        loaded.release()
        loaded.meter.reset()
        return messages.WorkloadSwitched(seconds=time.perf_counter() - started_s)

    def inspect(self, request: messages.Inspect) -> messages.Inspected:
        """Report what is known only after the last generation."""
        loaded, compiled = self._loaded, self._compiled
        window, counted = loaded.meter.read(), compiled.counts()
        # Before what is measured last, which may compile for itself.
        failed = counters.guard_failures() - compiled.guards_after_warmup
        # After the last generation that is measured, and before any that is not.
        final = state.read(loaded.pipeline, self._case.build)
        values = {
            **loaded.values,
            **self._quantized.values,
            **self._quantized.work.values(self._case.workload),
            **counted,
            # Compiling is part of the peak: graphs capture their memory there, and replay invisibly.
            **memory.peaks([compiled.window, window]),
        }
        started_s = time.perf_counter()
        arrays = self._repeat_trace(request.trace) if request.trace else None
        fidelity_s = time.perf_counter() - started_s if arrays else 0.0
        saving, saved = offloading.inspect(loaded.pipeline, self._case, self._quantized.saving)
        step = observed_step.observe(loaded.pipeline, self._case)
        values |= saved | observed_step.unfused_attention_calls(step, self._quantized.work.attention_calls)
        values |= packaged_blocks.values(loaded.pipeline, self._case)
        values |= graphed.values(loaded.pipeline, self._case)
        work = kernels.UNCOUNTED
        if request.work:
            # Last: it generates again, and recording takes memory and time of its own.
            unit = kernels.UNITS[Device(loaded.device.type)]
            work = kernels.measure(loaded.pipeline, self._case, loaded.stages.clock, unit)
            values |= work.values
        if request.work and loaded.device.type == Device.CUDA and is_busy_timed(self._case):
            values |= busy_time.measure(loaded.pipeline, self._case, loaded.stages.clock)
        values |= reshaping.tour(loaded.pipeline, self._case, loaded.stages)  # last of all: it compiles
        return messages.Inspected(
            values=values,
            memory=window,
            arrays=arrays,
            fidelity_s=fidelity_s,
            guard_failures=tuple(failed),
            state=final,
            uncounted=self._quantized.work.uncounted,
            step=step,
            settings=setting_effects.report(self._case.build.recipe, work.step),
            memory_saving=saving,
        )

    def profile(self, request: Profile) -> Profiled:
        """Record what a step consists of: once nothing of this process is timed any more."""
        loaded = self._loaded
        device = Device(loaded.device.type)
        return step_profile.profile(loaded.pipeline, self._case, loaded.stages.clock, device, request)

    def snapshot(self, request: Snapshot) -> Snapshotted:
        """Record what a generation of few steps allocates: once nothing of this process is measured."""
        loaded = self._loaded
        if loaded.device.type != Device.CUDA:
            return Snapshotted(problem="torch keeps no history of allocations on a CPU")
        generate = partial(prime, loaded.pipeline, self._case)  # with all steps, the history would be long
        return memory_history.take(generate, torch.cuda.memory, request)

    def _record_unquantized(self, request: messages.Quantize) -> UnquantizedPipeline:
        pipeline, recipe = self._loaded.pipeline, self._case.build.recipe
        work = count_step(pipeline, self._case)
        probed = request.probe and recipe.scheme.config is not None and not recipe.is_loaded
        first_answer = probe.record(pipeline, self._case) if probed else None
        values = self._anchor_values() if self._case.is_reference else {}
        values |= prompts.differences(pipeline, self._case)
        started_s = time.perf_counter()
        traces, recorded = {}, {}
        for asked in request.traces:
            traces[asked.case.id] = trace.record(pipeline, asked.case)
            recorded[asked.case.id] = self._recorded(asked, traces[asked.case.id])
        return UnquantizedPipeline(
            work=work,
            probe=first_answer,
            values=values,
            traces=traces,
            recorded=recorded,
            recording_s=time.perf_counter() - started_s,
        )

    def _recorded(self, asked: messages.Trace, recorded: trace.TransformerTrace) -> reports.Recorded:
        picture = None
        recipe = asked.case.build.recipe
        if asked.case.is_reference and recipe.compiles and recipe.rounds_as_eager:
            generation = generate_once(self._loaded.pipeline, asked.case, self._loaded.stages)
            picture = capture.save(generation.output, f"{asked.stem}.eager")
        return reports.Recorded(arrays=trace.save(recorded, f"{asked.stem}.eager.npz"), picture=picture)

    def _repeat_trace(self, stem: str) -> reports.Arrays:
        before = self._quantized.traces.pop(self._case.id)
        now = trace.repeat(self._loaded.pipeline, self._case, before, self._loaded.device)
        return trace.save(now, f"{stem}.timed.npz")

    def _layer_errors(self) -> dict[str, reports.LayerError]:
        twins = layers.twins(self._case.build, self._loaded.device)
        errors = layers.compare(self._loaded.pipeline, self._case, twins)
        memory.clear_workspaces()
        self._loaded.release()
        return errors

    def _anchor_values(self) -> dict[str, float]:
        stored = anchor_files.load(self._case.build, self._loaded.weights)
        if stored is None:
            return {}
        return anchor.values(stored, anchor_recording.record(self._loaded.pipeline, stored.spec))

    def _choose(self, file: str | None) -> Choose:
        if file is None:
            message = f"no file is named for the plan that {self._case.build.recipe.scheme.id} follows"
            kind, phase = messages.FailureKind.LOAD, messages.Phase.SEARCH
            raise WorkerError(messages.Failure(kind=kind, phase=phase, message=message))
        timer = layer_timing.CallTimer(self._loaded.stages.clock, self._loaded.device)
        return partial(autoquant.choose, self._loaded.pipeline, self._case, Path(file), timer)

    def _warmed_up(self, generation: Generation) -> None:
        self._compiled.warmed_up()
        self._loaded.arm(generation.values, self._compiled.window)


def _refuse_switch(why: str) -> NoReturn:
    message = f"the worker cannot switch to another case: {why}"
    failure = messages.Failure(
        kind=messages.FailureKind.LOAD, phase=messages.Phase.SWITCH_WORKLOAD, message=message
    )
    raise WorkerError(failure)
