"""Starts workers: all on one stack, each case with a log and compile caches of its own."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.execution.forks import CACHES, Forks
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.execution.worker_files import WorkerFiles
from perf_tests.harness.lanes import machine
from perf_tests.harness.lanes.cards import LaneCard
from perf_tests.harness.processes.inherited import SECRETS
from perf_tests.harness.processes.usage import UsageMeter
from perf_tests.harness.processes.watch import Step, Watch, unwatched
from perf_tests.harness.processes.worker_process import COMMAND, Worker
from perf_tests.harness.runs.environments import differences
from perf_tests.protocol.errors import StackChangedError, WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import Environment
from perf_tests.tables.platforms import Device, Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """The interpreter that workers run under, the files that they share with other runs, and who watches."""

    python: str
    command: tuple[str, ...] = COMMAND
    """What follows the interpreter."""
    artifacts: Path | None = None
    """The folder of compile-cache artifacts; None where none are loaded or saved."""
    plans: Path | None = None
    """The folder of the plans that searches find; None for one in the run directory."""
    forking: tuple[str, ...] | None = None
    """What follows the interpreter in the command of processes that import ahead (`WorkerStart`); None where
    every worker is started when it is wanted, on whichever platform."""
    watch: Watch = unwatched
    """Told of each phase of each worker."""


@dataclass(slots=True)
class Seen:
    """What the first worker of a session reported, which all others must match."""

    environment: Environment | None = None
    """None before one is ready."""


class AbortedError(BaseException):
    """The session ends, and another thread has ended the worker that this one was asking."""


class Launcher:
    """Starts workers, which must all report the same stack, and ends them."""

    def __init__(
        self,
        out: Path,
        stack: Stack,
        *,
        seen: Seen | None = None,
        card: LaneCard | None = None,
        meter: UsageMeter | None = None,
    ) -> None:
        """Start workers of `stack`, with logs and caches in `out`.

        `seen` is shared by launchers of the same stack, `meter` by those of the same device. `card` is the
        one that workers compute on, where the session has several; its files have a folder of their own.
        """
        self.out = out
        self.card = card
        self.files = WorkerFiles(out=out, card=card, artifacts=stack.artifacts, plans=stack.plans)
        self.meter = meter or UsageMeter()
        self.watch = self.meter.on(stack.watch)
        """Told of each phase of each worker."""
        self._seen = seen or Seen()
        self._stack = stack
        self._workers: list[Worker] = []
        self._is_aborted = False
        self._forks = Forks(stack.forking, self.files.logs, self.files.cache("importing"))

    @property
    def environment(self) -> Environment | None:
        """What the first worker reported, which all others must match; None before one is ready."""
        return self._seen.environment

    def start(self, planned: Planned, stem: str, index: int) -> Worker:
        """A worker that is ready; `stem` and `index` name its log, and `stem` its compile caches.

        Raises WorkerError where it does not start, computes on another device than the platform's, or has
        another stack than the workers before it.
        """
        with self.watch(self._importing(planned, index)):
            worker = self.spawn(planned, stem, index)
            try:
                self._greet(worker, planned)
            except BaseException:  # Ctrl-C, too, must not leave a process behind
                worker.kill()
                raise
        self._forks.ready_next(planned, worker.environment.gpu)
        return worker

    def spawn(self, planned: Planned, stem: str, index: int) -> Worker:
        """A worker that is still importing: `greet` it before its first request.

        `stem` and `index` name its log, and `stem` its compile caches. Raises WorkerError where the
        interpreter cannot be started.
        """
        worker = Worker.spawn(
            python=self._stack.python,
            command=self._stack.command,
            log=self.out / self.files.log_name(stem, index),
            variables=self._variables(planned.platform, stem),
            secrets=SECRETS[planned.case.build.weights],
            is_sharing_host=self.card is not None,
            start=self._forks.starter(planned),
        )
        self._workers.append(worker)
        if self._is_aborted:
            worker.kill()
        self.raise_if_aborted()
        return worker

    def greet(self, worker: Worker, planned: Planned, index: int) -> None:
        """Wait until a spawned worker, of the process `index` of its case, is ready.

        Raises WorkerError, with the worker killed, where it does not become ready, computes on another device
        than the platform's, or has another stack than the workers before it.
        """
        with self.watch(self._importing(planned, index)):
            self._greet(worker, planned)

    def _importing(self, planned: Planned, index: int) -> Step:
        unit = self.card.unit if self.card else None
        return Step(case_id=planned.case.id, phase=Phase.IMPORT, process=index, unit=unit)

    def _greet(self, worker: Worker, planned: Planned) -> None:
        worker.greet(planned.platform.timeouts.import_s)
        first = self._seen.environment = self._seen.environment or worker.environment
        if problem := machine.mismatch(planned.platform, worker.environment.gpu, self.card):
            worker.kill()
            raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.LOAD, message=problem))
        if changes := differences(first.packages, worker.environment.packages):
            worker.kill()
            message = f"stack changed during the run: {', '.join(changes)}"
            raise StackChangedError(Failure(kind=FailureKind.LOAD, phase=Phase.IMPORT, message=message))

    def quiet(self) -> AbstractContextManager[None]:
        """While nothing is imported for the next worker."""
        return self._forks.quiet()

    @property
    def late_imports(self) -> str | None:
        """Why workers import when they are wanted and not ahead; None where nothing keeps them from it."""
        return self._forks.gave_up

    def drop_spare(self) -> None:
        """End the next worker, if it is importing: other launchers measure now."""
        self._forks.drop_spare()

    def kill_all(self) -> None:
        """Kill every worker that was started, and what forks them. Idempotent."""
        self._forks.close()
        for worker in self._workers:
            worker.kill()

    def abort_all(self) -> None:
        """End every worker from another thread than theirs, and let no further one start. Idempotent."""
        self._is_aborted = True
        self._forks.close()
        for worker in tuple(self._workers):
            worker.abort()

    def raise_if_aborted(self) -> None:
        """Raise AbortedError after `abort_all`: a worker that was ended so has not failed."""
        if self._is_aborted:
            raise AbortedError

    def _variables(self, platform: Platform, stem: str) -> dict[str, str]:
        caches = {name: str(self.files.cache(stem) / folder) for name, folder in CACHES.items()}
        return {**caches, **VARIABLES[platform.device], **(self.card.variables if self.card else {})}


VARIABLES = {
    Device.CPU: {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),  # those this process may use
        # Threads that spin while they wait for work take the processor from those that have it: with other
        # work on the host, 2,000 small layers were quantized in 53 s instead of 5.
        "OMP_WAIT_POLICY": "passive",
    },
    # CUDA's default order puts the fastest GPU first; NVML, which describes the GPUs, orders by PCI address.
    Device.CUDA: {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
}
