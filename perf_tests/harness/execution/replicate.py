"""One case in one worker process, from its build to its report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.processes import replies, reported
from perf_tests.harness.processes.watch import Step, Watch, unwatched
from perf_tests.harness.processes.worker_process import R, Worker
from perf_tests.harness.records.builds import BuildReport
from perf_tests.harness.records.process_ends import SamplingEnd, WarmUpEnd
from perf_tests.harness.runs import projection, stalls, validity
from perf_tests.harness.runs.record import Process
from perf_tests.protocol.messages import (
    Compile,
    Compiled,
    Generate,
    Generated,
    Inspect,
    Inspected,
    Load,
    Loaded,
    Phase,
    Quantize,
    Quantized,
    Request,
    SwitchWorkload,
    Trace,
    WorkloadSwitched,
)
from perf_tests.protocol.reports import BuiltTwin, Capture, Recorded, Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeTwin:
    """What a worker has made of the built twin of a case, and has ended."""

    report: BuiltTwin
    folder: Path | None
    """Of what the case loads, its weights or its packages; None where it loads nothing."""
    host_s: float
    """What the worker took, from its start."""


@dataclass(slots=True)
class Replicate:
    """One case in one process while it is measured, with everything that the worker has reported so far."""

    worker: Worker
    planned: Planned
    log: str
    artifacts: Path | None = None
    """The file of the compile-cache artifacts; None where none are loaded or saved."""
    plan: Path | None = None
    """The file of the plan that a search finds; None for a scheme without a search."""
    loaded: Loaded | None = None
    quantized: Quantized | None = None
    compiled: Compiled | None = None
    inspected: Inspected | None = None
    warmups: list[Sample] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    retaken: list[Sample] = field(default_factory=list)
    twin_samples: list[Sample] = field(default_factory=list)
    warmup_end: WarmUpEnd | None = None
    sampling_end: SamplingEnd | None = None
    captures: list[Capture] = field(default_factory=list)
    switched: bool = False
    """Whether the worker held the build already and only switched the workload."""
    spent_before_s: dict[Phase, float] = field(default_factory=dict)
    """Host seconds that the worker had spent before this case, by phase."""
    index: int = 0
    """Of this process in the run of its case."""
    watch: Watch = unwatched
    made: MadeTwin | None = None
    """None for a case without a built twin."""

    def build(self, traces: tuple[Trace, ...] = (), *, layers: bool = True) -> None:
        """Load the pipeline, record the transformer's answers for `traces`, and quantize.

        Without `layers`, no quantized layer is compared with its bf16 twin, as only what is judged by errors
        needs. Raises WorkerError where the worker fails, like every method that asks the worker.
        """
        case, platform = self.planned.case, self.planned.platform
        folder = self.made.folder if self.made and case.build.recipe.is_loaded else None
        checkpoint = None if folder is None else str(folder)
        faults = self.planned.injections
        load = Load(case=case, device=platform.device, injections=faults, checkpoint=checkpoint)
        self.loaded = self.ask(load, Loaded, Phase.LOAD)
        if folder is not None:
            shutil.rmtree(folder)
        plan = None if self.plan is None else str(self.plan)
        quantize = Quantize(
            probe=platform.probe,
            plan=plan,
            layers=layers and self.planned.is_compared,
            traces=traces,
            tensors=self.made is not None,
        )
        self.quantized = self.ask(quantize, Quantized, Phase.QUANTIZE if self.plan is None else Phase.SEARCH)

    def switch_workload(self, planned: Planned, artifacts: Path | None, index: int) -> Replicate:
        """The replicate of another workload of the build, in this worker; it is not compiled yet.

        `index` is that of the process in the run of the other case.
        """
        spent_s = dict(self.worker.seconds)
        self.ask(SwitchWorkload(case=planned.case), WorkloadSwitched, Phase.SWITCH_WORKLOAD)
        return Replicate(
            self.worker,
            planned,
            self.log,
            artifacts,
            loaded=self.loaded,
            quantized=self.quantized,
            switched=True,
            spent_before_s=spent_s,
            index=index,
            watch=self.watch,
        )

    def warm_up(self, warmups: int) -> None:
        """Compile, then generate `warmups` times, or until the step is steady where latency is composed."""
        self._compile()
        composed = self.planned.case.workload.measured_steps is not None
        while (end := _warmup_end(self.warmups, warmups, composed)) is None:
            self.warmups.append(self.generate(Generate(warmup=True)).sample)
        self.warmup_end = end

    def _compile(self) -> None:
        request = Compile()
        if self.artifacts is not None:
            tuned = self.artifacts.parent / TUNED
            request = Compile(artifacts=str(self.artifacts), tuned=str(tuned))
        packages = self.made.folder if self.made and self.planned.case.build.recipe.is_packaged else None
        if packages is not None:
            request = Compile(packages=str(packages))
        self.compiled = self.ask(request, Compiled, Phase.COMPILE)
        if packages is not None:
            shutil.rmtree(packages)

    def sample(self, capture: Path | None = None, *, place: int | None = None) -> Sample:
        """Generate once, timed; an invalid sample is retaken as long as the process has retakes left.

        `place` says which of the pairs of prompt and seed, in turn; by default the one after the last.
        `capture` is the stem of the files in which the output of each pair of prompt and seed is kept once;
        None keeps nothing.
        """
        count = projection.pairs(self.planned.case, self.planned.platform)
        pair = (len(self.samples) if place is None else place) % count
        keeps = capture is not None and len(self.samples) < count
        request = Generate(pair=pair, capture=f"{capture}.{pair}" if keeps else None)
        generated = self._generate_validly(request)
        self.samples.append(generated.sample)
        if generated.capture:
            self.captures.append(generated.capture)
        return generated.sample

    def retake_stalled(self) -> None:
        """Retake each image that took far longer than the others, as long as the process has retakes left."""
        for stall in stalls.stalled(self.samples, self.retaken):
            if len(self.retaken) < validity.RETAKES and not stall.was_retaken:
                slow = self.samples[stall.index]
                self.retaken.append(slow)
                self.samples[stall.index] = self._generate_validly(Generate(pair=slow.pair)).sample

    def inspect(self, trace: Path | None = None, *, work: bool = True) -> None:
        """Ask for what describes the whole process; `trace` is the stem of the files of recorded answers, and
        `work` whether the work of each stage is counted."""
        request = Inspect(trace=None if trace is None else str(trace), work=work)
        self.inspected = self.ask(request, Inspected, Phase.INSPECT)

    def process(self, out: Path) -> Process:
        """The process as it is recorded, complete or not. It must have loaded."""
        return Process(
            environment=self.worker.environment,
            build=self._report(),
            warmups=tuple(self.warmups),
            samples=tuple(self.samples),
            retaken=tuple(self.retaken),
            warmup_end=self.warmup_end,
            sampling_end=self.sampling_end,
            # A twin sample without its sample has no ratio.
            twin_samples=tuple(self.twin_samples[: len(self.samples)]),
            captures=tuple(reported.relative_capture(capture, out) for capture in self.captures),
            recorded=reported.with_relative_files(self._recorded, out),
            arrays=reported.relative_arrays(self.inspected.arrays, out) if self.inspected else None,
            log=self.log,
        )

    @property
    def _recorded(self) -> Recorded | None:
        return self.quantized.recorded.get(self.planned.case.id) if self.quantized else None

    def _generate_validly(self, request: Generate) -> Generated:
        """Generate, and again while the sample is invalid and the process has retakes left."""
        generated = self.generate(request)
        while validity.must_retake(generated.sample, len(self.retaken)):
            self.retaken.append(generated.sample)
            generated = self.generate(request)
        return generated

    def generate(self, request: Generate) -> Generated:
        """Generate once, and compose the latency of all steps. Nothing of it is kept."""
        generated = self.ask(request, Generated, Phase.GENERATE)
        sample = projection.composed(generated.sample, self.planned.case.workload)
        return msgspec.structs.replace(generated, sample=sample)

    def _report(self) -> BuildReport:
        assert self.loaded is not None, "a process that has not loaded has nothing to report"
        phases = {
            Phase.LOAD: self.loaded,
            Phase.QUANTIZE: self.quantized,
            Phase.COMPILE: self.compiled,
        }
        memory = {phase.value: reply.memory for phase, reply in phases.items() if reply}
        if self.inspected:
            memory[Phase.GENERATE.value] = self.inspected.memory
        return BuildReport(
            seconds=self._seconds(),
            memory=memory,
            weights=self.loaded.weights,
            quantization=self.quantized.quantization if self.quantized else None,
            cache=self.compiled.cache if self.compiled else None,
            values={
                **(self.inspected.values if self.inspected else {}),
                **reported.compile_values(self.compiled),
                **reported.built_values(self.loaded, self.quantized),
                **self._twin_values(),
            },
            roofline_ms=self._roofline_ms(),
            guard_failures=self.inspected.guard_failures if self.inspected else (),
            layers=self.quantized.layers if self.quantized else {},
            uncounted=self.inspected.uncounted if self.inspected else {},
            state=self.quantized.state if self.quantized else None,
            final_state=self.inspected.state if self.inspected else None,
            step=self.inspected.step if self.inspected else None,
            settings=self.inspected.settings if self.inspected else None,
            tensors=self.quantized.tensors if self.quantized else {},
            converted=self.quantized.converted if self.quantized else None,
            built_twin=self.made.report if self.made else None,
            memory_saving=self.inspected.memory_saving if self.inspected else None,
            training=self.inspected.training if self.inspected else None,
            placement=self.inspected.placement if self.inspected else None,
        )

    def _twin_values(self) -> dict[str, float]:
        if self.made is None or self.loaded is None or self.quantized is None:
            return {}
        twin, samples = self.made.report, (*self.warmups, *self.samples)
        return {
            **reported.twin_values(twin, self.loaded, self.quantized, samples),
            **reported.package_values(twin, self.compiled, self.warmups, self.samples),
        }

    def _roofline_ms(self) -> float | None:
        tflop = self.inspected.values.get("step_tflop") if self.inspected else None
        scheme = self.planned.case.build.recipe.scheme
        return validity.roofline_ms(tflop, scheme=scheme, platform=self.planned.platform)

    def _seconds(self) -> dict[str, float]:
        spent_s = {
            phase: seconds - self.spent_before_s.get(phase, 0.0)
            for phase, seconds in self.worker.seconds.items()
        }
        # What a worker did once for all workloads, the first case of it paid for.
        quantized = None if self.switched else self.quantized
        return reported.phase_seconds(
            spent_s, quantized, self.inspected, self.made.host_s if self.made else 0.0
        )

    def ask(self, request: Request, reply_type: type[R], phase: Phase) -> R:
        """The worker's answer, within the time of `phase`.

        Raises WorkerError where there is none, or one that contradicts the request.
        """
        step = Step(
            case_id=self.planned.case.id,
            phase=phase,
            process=self.index,
            unit=self.worker.environment.unit,
        )
        with self.watch(step):
            reply = self.worker.ask(request, reply_type, _timeout_s(self.planned, phase))
        if why := replies.objection(request, reply, self.planned.case):
            self.worker.disbelieve(phase, why)
        return reply


TUNED = "tuned"
"""The folder beside the compile-cache artifacts with the kernels that were chosen by timing."""


def _warmup_end(samples: Sequence[Sample], least: int, composed: bool) -> WarmUpEnd | None:
    """Why `samples` are enough warm-ups; None for one more.

    A composed latency needs steady steps, any other the `least` number of warm-ups.
    """
    if len(samples) < least:
        return None
    if not composed:
        return WarmUpEnd.FIXED
    if projection.is_steady(samples):
        return WarmUpEnd.STEADY
    return WarmUpEnd.MOST if len(samples) >= projection.MAX_WARMUPS else None


def _timeout_s(planned: Planned, phase: Phase) -> float:
    timeouts, recipe = planned.platform.timeouts, planned.case.build.recipe
    reshaping_s = 0.0 if recipe.reshaping is None else timeouts.compile_s + timeouts.generate_s
    training_s = 0.0 if recipe.training is None else timeouts.generate_s
    return {
        Phase.LOAD: timeouts.load_s,
        Phase.QUANTIZE: timeouts.quantize_s + training_s,  # trains in bf16, to compare with
        Phase.SEARCH: timeouts.quantize_s + timeouts.compile_s,  # a search compiles every candidate
        Phase.SAVE: timeouts.load_s + timeouts.quantize_s,  # some ways build and quantize for themselves
        Phase.PACKAGE: timeouts.compile_s,
        Phase.COMPILE: timeouts.compile_s,
        Phase.GENERATE: timeouts.generate_s,
        Phase.SWITCH_WORKLOAD: timeouts.quantize_s,
        Phase.PROFILE: timeouts.generate_s,
        Phase.INSPECT: timeouts.generate_s + reshaping_s,  # generates once more to count kernels
    }[phase]
