"""One worker process from its start to its report, and the fp32 twin that stands beside it."""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from perf_tests.harness import machine
from perf_tests.harness.errors import WorkerError
from perf_tests.harness.protocol import (
    Capture,
    Compile,
    Compiled,
    Environment,
    Failure,
    FailureKind,
    Fault,
    Generate,
    Generated,
    Injection,
    Inspect,
    Inspected,
    Load,
    Loaded,
    Phase,
    Quantize,
    Quantized,
    Request,
    Sample,
)
from perf_tests.harness.records import (
    STATUS_OF_FAILURE,
    BuildReport,
    Process,
    Run,
    Status,
)
from perf_tests.harness.rundir import CACHE, LOGS
from perf_tests.harness.workers import R, Worker
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device, Platform, Timeouts

AMOUNTS = {
    Fault.LATENCY: "{}:+{:g}%",
    Fault.MEMORY: "{}:+{:g}%",
    Fault.DROP_QUANTIZATION: "{}:{:g}",
}
"""How the option writes an injection; faults without an amount are just named."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A case of this session, where it is measured and what is broken in it."""

    case: Case
    platform: Platform
    injections: tuple[Injection, ...] = ()


class Launcher:
    """Starts the workers of a campaign, all of them on one stack."""

    def __init__(self, out: Path, python: str, command: tuple[str, ...]) -> None:
        self.out = out
        self.environment: Environment | None = None
        self._python = python
        self._command = command
        self._workers: list[Worker] = []

    def start(self, planned: Planned, stem: str, index: int) -> Worker:
        worker = Worker.start(
            python=self._python,
            command=self._command,
            log=self.out / self.log_name(stem, index),
            variables=self._variables(planned.platform, stem),
            timeout_s=planned.platform.timeouts.import_s,
        )
        self._workers.append(worker)
        self.environment = self.environment or worker.environment
        if problem := machine.mismatch(planned.platform, worker.environment.gpu):
            worker.kill()
            raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.LOAD, message=problem))
        if changes := _changes(self.environment.packages, worker.environment.packages):
            worker.kill()
            message = f"stack changed during the run: {', '.join(changes)}"
            raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.IMPORT, message=message))
        return worker

    def kill_all(self) -> None:
        for worker in self._workers:
            worker.kill()

    def log_name(self, stem: str, index: int) -> str:
        return f"{LOGS}/{stem}.{index}.log"

    def discard_cache(self, stem: str) -> None:
        shutil.rmtree(self._cache(stem), ignore_errors=True)  # no other run looks there

    def _cache(self, stem: str) -> Path:
        return self.out / CACHE / stem

    def _variables(self, platform: Platform, stem: str) -> dict[str, str]:
        caches = {
            "TORCHINDUCTOR_CACHE_DIR": str(self._cache(stem) / "inductor"),
            "TRITON_CACHE_DIR": str(self._cache(stem) / "triton"),
        }
        return {**caches, **VARIABLES[platform.device]}


VARIABLES = {
    Device.CPU: {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),  # those this process may use, not all there are
    },
    # Otherwise CUDA counts the fastest GPU first, and NVML, which describes it, by PCI address.
    Device.CUDA: {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
}


@dataclass(slots=True)
class Attempt:
    """One process while it is measured, and what there is of it so far."""

    worker: Worker
    planned: Planned
    log: str
    loaded: Loaded | None = None
    quantized: Quantized | None = None
    compiled: Compiled | None = None
    inspected: Inspected | None = None
    warmups: list[Sample] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    twin_samples: list[Sample] = field(default_factory=list)
    capture: Capture | None = None

    def build(self, warmups: int) -> None:
        case, platform = self.planned.case, self.planned.platform
        load = Load(case=case, device=platform.device, injections=self.planned.injections)
        self.loaded = self._ask(load, Loaded, Phase.LOAD)
        self.quantized = self._ask(Quantize(), Quantized, Phase.QUANTIZE)
        self.compiled = self._ask(Compile(), Compiled, Phase.COMPILE)
        for _ in range(warmups):
            self.warmups.append(self._ask(Generate(warmup=True), Generated, Phase.GENERATE).sample)

    def sample(self, capture: Path | None = None) -> Sample:
        request = Generate(capture=None if capture is None else str(capture))
        generated = self._ask(request, Generated, Phase.GENERATE)
        self.samples.append(generated.sample)
        self.capture = generated.capture or self.capture
        return generated.sample

    def sample_twin(self, twin: Twin) -> None:
        self.twin_samples.append(twin.sample())

    def inspect(self) -> None:
        self.inspected = self._ask(Inspect(), Inspected, Phase.INSPECT)

    def process(self, out: Path) -> Process:
        """Complete or not; at least loaded."""
        return Process(
            environment=self.worker.environment,
            build=self._report(),
            warmups=tuple(self.warmups),
            samples=tuple(self.samples),
            # A pair that was cut short has no ratio.
            twin_samples=tuple(self.twin_samples[: len(self.samples)]),
            capture=_relative(self.capture, out),
            log=self.log,
        )

    def _report(self) -> BuildReport:
        assert self.loaded is not None, "a process that did not load has nothing to report"
        phases = {
            Phase.LOAD: self.loaded,
            Phase.QUANTIZE: self.quantized,
            Phase.COMPILE: self.compiled,
        }
        answered = {phase.value: reply for phase, reply in phases.items() if reply}
        waited_s = self.worker.seconds
        host_clock = {
            phase.value: waited_s[phase] for phase in (Phase.IMPORT, Phase.GENERATE) if phase in waited_s
        }
        memory = {phase: reply.memory for phase, reply in answered.items()}
        if self.inspected:
            memory[Phase.GENERATE.value] = self.inspected.memory
        return BuildReport(
            seconds={**host_clock, **{phase: reply.seconds for phase, reply in answered.items()}},
            memory=memory,
            weights=self.loaded.weights,
            quantization=self.quantized.quantization if self.quantized else None,
            cache=self.compiled.cache if self.compiled else None,
            values={**(self.inspected.values if self.inspected else {}), **_compile_values(self.compiled)},
        )

    def _ask(self, request: Request, reply_type: type[R], phase: Phase) -> R:
        return self.worker.ask(request, reply_type, _timeout_s(self.planned.platform.timeouts, phase))


class Twin:
    """The fp32 worker beside the cases of one pipeline: restarted once per case."""

    def __init__(
        self, planned: Planned, launcher: Launcher, warmups: int, references: dict[str, Run]
    ) -> None:
        self.planned = planned
        self._launcher = launcher
        self._warmups = warmups
        self._references = references
        self._stem = f"{planned.case.id}.reference"
        self._attempt: Attempt | None = None
        self._numbers = itertools.count()
        self._beside = ""
        self._restarts_left = 1

    def serve(self, case_id: str) -> None:
        """From here on the twin stands beside another case, or beside another process of the same."""
        if case_id != self._beside:
            self._beside, self._restarts_left = case_id, 1

    def sample(self) -> Sample:
        """Generate once; a WorkerError names the twin."""
        try:
            self._attempt = self._attempt or self._build()
            return self._attempt.sample()
        except WorkerError as error:
            self._attempt = None
            failure = msgspec.structs.replace(
                error.failure, message=f"fp32 twin {self.planned.case.id}: {error.failure.message}"
            )
            self._note(failure=failure, status=STATUS_OF_FAILURE[failure.kind], reason=failure.message)
            if not self._restarts_left:
                raise WorkerError(failure) from error
        self._restarts_left -= 1
        return self.sample()

    def close(self) -> None:
        if self._attempt:
            self._attempt.worker.close()
            *before, last = self._run.processes
            whole = self._attempt.process(self._launcher.out).build  # with the time it generated
            self._note(processes=(*before, msgspec.structs.replace(last, build=whole)))
            self._attempt = None

    def _build(self) -> Attempt:
        index = next(self._numbers)
        worker = self._launcher.start(self.planned, self._stem, index)
        attempt = Attempt(worker, self.planned, self._launcher.log_name(self._stem, index))
        try:
            attempt.build(self._warmups)
        except BaseException:  # Ctrl-C, too, must not leave a process behind
            worker.kill()
            raise
        processes = (*self._run.processes, attempt.process(self._launcher.out))
        reason = "measured beside others, not judged"
        self._note(processes=processes, failure=None, status=Status.INCONCLUSIVE, reason=reason)
        return attempt

    @property
    def _run(self) -> Run:
        return self._references.get(self.planned.case.id) or blank(self.planned)

    def _note(self, **changes: object) -> None:
        self._references[self.planned.case.id] = msgspec.structs.replace(self._run, **changes)


def blank(planned: Planned) -> Run:
    case = planned.case
    return Run(
        id=case.id,
        digest=case.digest,
        platform=planned.platform.id,
        pipeline=case.build.pipeline.id,
        status=Status.INCONCLUSIVE,
        reason="not measured",
        reference=None if case.is_reference else case.reference.id,
        injected=tuple(map(_spelt, planned.injections)),
    )


def _spelt(injection: Injection) -> str:
    if injection.amount is None:
        return injection.fault.value
    return AMOUNTS.get(injection.fault, "{}:{:g}").format(injection.fault, injection.amount)


def _timeout_s(timeouts: Timeouts, phase: Phase) -> float:
    return {
        Phase.LOAD: timeouts.load_s,
        Phase.QUANTIZE: timeouts.quantize_s,
        Phase.COMPILE: timeouts.compile_s,
        Phase.GENERATE: timeouts.generate_s,
        Phase.TURN: timeouts.quantize_s,
        Phase.INSPECT: timeouts.generate_s,  # reads counters, waits for nothing but the last generation
    }[phase]


def _compile_values(compiled: Compiled | None) -> dict[str, float]:
    """Cold and warm are two metrics; a cache that was both is neither."""
    if compiled is None or compiled.cache is None or compiled.cache.state == "mixed":
        return {}
    return {f"compile_{compiled.cache.state}_s": compiled.seconds}


def _relative(capture: Capture | None, out: Path) -> Capture | None:
    if capture is None:
        return None
    array, image = (os.path.relpath(out / name, out) for name in (capture.array, capture.image))
    return msgspec.structs.replace(capture, array=array, image=image)


def _changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return [
        f"{name} {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
