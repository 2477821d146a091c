"""Owns the workers and their order: case id -> Run, measured once, references first."""

from __future__ import annotations

import difflib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from perf_tests.harness import machine
from perf_tests.harness.errors import PerfError, RecordError, UsageError, WorkerError
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
    FORMAT_VERSION,
    STATUS_OF_FAILURE,
    BuildReport,
    Process,
    Run,
    RunRecord,
    Status,
    Verdict,
    read_record,
    write_record,
)
from perf_tests.harness.sampling import Decide, ProcessError, measure
from perf_tests.harness.workers import COMMAND, R, Worker
from perf_tests.tables.matrix import Case
from perf_tests.tables.platforms import Device, Platform, Timeouts

RECORD = "run.json"
LOGS, CAPTURES, CACHE = "logs", "captures", "cache"
LEFTOVERS = {LOGS, CAPTURES, CACHE, f"{RECORD}.tmp"}
"""What a session leaves that was killed before its first record."""

AMOUNTS = {
    Fault.LATENCY: "{}:+{:g}%",
    Fault.MEMORY: "{}:+{:g}%",
    Fault.DROP_QUANTIZATION: "{}:{:g}",
}
"""How the option writes an injection; faults without an amount are just named."""

Prepare = Callable[[Run, Run | None], Run]


@dataclass(frozen=True, slots=True)
class Planned:
    """A case of this session, where it is measured and what is broken in it."""

    case: Case
    platform: Platform
    injections: tuple[Injection, ...] = ()


class Campaign:
    """Everything measured in one session, in a directory of its own (see `prepare_run_directory`)."""

    def __init__(
        self,
        *,
        plan: tuple[Planned, ...],
        out: Path,
        python: str,
        decide: Decide,
        max_processes: int,
        started_at: str,
        command_line: str,
        command: tuple[str, ...] = COMMAND,
        warmups: int = 1,
        prepare: Prepare = lambda run, reference: run,
    ) -> None:
        """`prepare` gets each run that did not fail, with its reference, and returns what is kept of it."""
        self._planned = {planned.case.id: planned for planned in plan}
        self._out = out.resolve()
        self._launcher = _Launcher(self._out, python, command)
        self._decide = decide
        self._max_processes = max_processes
        self._warmups = warmups
        self._started_at = started_at
        self._command_line = command_line
        self._prepare = prepare
        self._runs: dict[str, Run] = {}
        self._references: dict[str, Run] = {}
        self._twin: _Twin | None = None
        self._missing: tuple[str, ...] = ()
        self._is_closed = False

    def run(self, case_id: str) -> Run:
        """The planned case's run, measured at the first request; a failed one is a Run with a failure.

        Raises UsageError for a case that is not planned, PerfError where the directory cannot be written;
        what was measured is kept either way.
        """
        planned = self._lookup(case_id)
        if case_id not in self._runs:
            reference = self._reference(planned)
            self._measure(planned, reference, stem=case_id, store=self._runs)
            self._write()
        return self._runs[case_id]

    def reference(self, case_id: str) -> Run | None:
        """The run that the case is compared with, measured if need be; None for a case that is one."""
        return self._reference(self._lookup(case_id))

    def file(self, case_id: str, verdicts: tuple[Verdict, ...], status: Status, reason: str) -> Run:
        """Put verdicts and the outcome into the case's record; a verdict replaces the metric's former one.

        A case that was not measured gets a run without processes: it was unsupported, or time ran out.
        Returns the run as it is filed.
        """
        planned = self._lookup(case_id)
        run = self._runs.get(case_id) or _blank(planned)
        filed = {verdict.metric: verdict for verdict in (*run.verdicts, *verdicts)}
        self._runs[case_id] = msgspec.structs.replace(
            run, verdicts=tuple(filed.values()), status=status, reason=reason
        )
        self._write()
        return self._runs[case_id]

    def set_missing(self, missing: tuple[str, ...]) -> None:
        """Note the planned `case: metric` pairs that nothing was said about; `close` writes them."""
        self._missing = missing

    @property
    def record(self) -> RunRecord:
        """All of it, cases in the order of the plan."""
        return RunRecord(
            format_version=FORMAT_VERSION,
            created_at=self._started_at,
            command=self._command_line,
            environment=self._launcher.environment,
            cases=tuple(self._runs[case_id] for case_id in self._planned if case_id in self._runs),
            references=tuple(self._references.values()),
            missing=self._missing,
        )

    def interrupt(self) -> None:
        """Kill all workers at once, then do what `close` does."""
        self._launcher.kill_all()
        self.close()

    def close(self) -> None:
        """End all workers and write the record. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._twin:
            self._twin.close()
        self._launcher.kill_all()
        self._write()

    def _lookup(self, case_id: str) -> Planned:
        if case_id in self._planned:
            return self._planned[case_id]
        near = ", ".join(difflib.get_close_matches(case_id, self._planned, n=3)) or "none is near"
        raise UsageError(
            f"no case {case_id!r} among the {len(self._planned)} of this session; nearest: {near}"
        )

    def _reference(self, planned: Planned) -> Run | None:
        if planned.case.is_reference:
            return None
        implicit = Planned(planned.case.reference, planned.platform)
        reference_id = implicit.case.id
        if reference_id in self._planned and not self._planned[reference_id].injections:
            return self.run(reference_id)
        if reference_id not in self._references:
            # A planned case with the same id but with injections has files of its own.
            self._measure(implicit, None, stem=f"{reference_id}.reference", store=self._references)
        return self._references[reference_id]

    def _measure(self, planned: Planned, reference: Run | None, *, stem: str, store: dict[str, Run]) -> None:
        underway = [_blank(planned)]
        try:
            run = measure(
                partial(self._process, planned, stem),
                underway[0],
                self._decide,
                self._max_processes,
                underway.append,
            )
        except BaseException:  # Ctrl-C, SIGTERM, a full disk: only finished processes are kept
            if underway[-1].processes:
                store[planned.case.id] = msgspec.structs.replace(underway[-1], reason="interrupted")
            raise
        if run.failure is None:
            run = self._prepare(msgspec.structs.replace(run, reason="measured, not judged"), reference)
        store[planned.case.id] = run

    def _process(self, planned: Planned, stem: str, index: int) -> Process:
        attempt = None
        capture = self._out / CAPTURES / f"{stem}.{index}" if index == 0 else None
        try:
            with self._launcher.start(planned, stem, index) as worker:
                attempt = _Attempt(worker, planned, self._launcher.log_name(stem, index))
                attempt.build(self._warmups)
                self._sample(attempt, capture)
                attempt.inspect()
                return attempt.process(self._out)
        except WorkerError as error:
            self._launcher.discard_cache(stem)
            process = attempt.process(self._out) if attempt and attempt.loaded else None
            raise ProcessError(error.failure, process) from error
        except BaseException:  # killed in the middle, too: what it was writing cannot be trusted
            self._launcher.discard_cache(stem)
            raise

    def _sample(self, attempt: _Attempt, capture: Path | None) -> None:
        platform = attempt.planned.platform
        twin = self._twin_of(attempt.planned) if platform.interleave_twin else None
        for index in range(platform.samples):
            last = index == platform.samples - 1
            case_generates = partial(attempt.sample, capture if last else None)
            if twin is None:
                case_generates()
                continue
            twin_generates = partial(attempt.sample_twin, twin)
            # Alternately first, so that a drift of the machine favours neither.
            pair = (twin_generates, case_generates) if index % 2 == 0 else (case_generates, twin_generates)
            for generate in pair:
                generate()

    def _twin_of(self, planned: Planned) -> _Twin:
        twin = Planned(planned.case.fp32_twin, planned.platform)
        if self._twin is None or self._twin.planned != twin:
            if self._twin:
                self._twin.close()
            self._twin = _Twin(twin, self._launcher, self._warmups, self._references)
        self._twin.serve(planned.case.id)
        return self._twin

    def _write(self) -> None:
        write_record(self._out / RECORD, self.record)


class _Launcher:
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
class _Attempt:
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

    def sample_twin(self, twin: _Twin) -> None:
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


class _Twin:
    """The fp32 worker beside the cases of one pipeline: restarted once per case."""

    def __init__(
        self, planned: Planned, launcher: _Launcher, warmups: int, references: dict[str, Run]
    ) -> None:
        self.planned = planned
        self._launcher = launcher
        self._warmups = warmups
        self._references = references
        self._stem = f"{planned.case.id}.reference"
        self._attempt: _Attempt | None = None
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

    def _build(self) -> _Attempt:
        index = next(self._numbers)
        worker = self._launcher.start(self.planned, self._stem, index)
        attempt = _Attempt(worker, self.planned, self._launcher.log_name(self._stem, index))
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
        return self._references.get(self.planned.case.id) or _blank(self.planned)

    def _note(self, **changes: object) -> None:
        self._references[self.planned.case.id] = msgspec.structs.replace(self._run, **changes)


def prepare_run_directory(out: Path) -> Path:
    """`out`, empty. A run that it holds is moved to `<out>.<its date>`, never deleted.

    UsageError for a directory that holds anything else, PerfError where the disk refuses.
    """
    out = out.absolute()
    with _writing(out):
        names = {path.name for path in out.iterdir()} if out.exists() else set()
        if RECORD in names or (names and names <= LEFTOVERS):
            out.rename(_free(out.with_name(f"{out.name}.{_date(out)}")))
        elif names:
            raise UsageError(
                f"{out} holds {sorted(names)[0]!r}, which is no part of a run; give a directory of its own "
                "with --perf-out"
            )
        out.mkdir(parents=True, exist_ok=True)
    return out


def _date(out: Path) -> str:
    """When the run in `out` began, as far as it can be told, in the compact form of ISO 8601."""
    try:
        began = datetime.fromisoformat(read_record(out / RECORD).created_at)
    except (RecordError, ValueError):
        began = datetime.fromtimestamp(out.stat().st_mtime, UTC)
    return began.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _free(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain((path,), numbered) if not candidate.exists())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PerfError(
            f"cannot write {path}: {error.strerror}; choose another directory with --perf-out"
        ) from error


def _blank(planned: Planned) -> Run:
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
