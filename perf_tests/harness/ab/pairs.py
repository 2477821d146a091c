"""A/B on one device: fresh pairs of workers, one under each interpreter, measured interleaved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec

from perf_tests.harness.ab.schedule import order, process_order
from perf_tests.harness.execution.built_twins import made_twin
from perf_tests.harness.execution.launcher import Launcher
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.execution.replicate import Replicate
from perf_tests.harness.lanes.waiting import all_or_failed
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.record import Pair, Process, Schedule, Side
from perf_tests.harness.runs.validity import CONTROL_CLOCK, CONTROLS
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import Environment

GENERATIONS = 4
"""Timed generations of each side in a pair, as A B B A A B B A: a linear drift favours neither side."""
SHARED_METRICS = frozenset({"peak_device_mib", *CONTROLS, CONTROL_CLOCK})
"""Metrics that depend on both workers: a counter of the whole card, kernels timed while the other loads."""


class SideError(Exception):
    """A worker of one side of a pair failed."""

    def __init__(self, side: Side, failure: Failure) -> None:
        super().__init__(failure.message)
        self.side, self.failure = side, failure


@dataclass(slots=True, eq=False)
class PairRunner:
    """Measures pairs; each side has its own interpreter, logs and compile caches."""

    launchers: Mapping[Side, Launcher]
    out: Path
    warmups: int = 1
    names: Mapping[Side, str] = field(default_factory=lambda: {side: side.value for side in Side})
    """What the logs and compile caches of each side are called by."""
    injected: frozenset[Side] = frozenset({Side.CANDIDATE})
    """The sides that get the faults of a fire drill."""

    def environment(self, side: Side) -> Environment | None:
        """What the first worker of the side reported; None before one did."""
        return self.launchers[side].environment

    def measure(self, planned: Planned, index: int, schedule: Schedule, *, together: bool = False) -> Pair:
        """Measure the pair `index` (from 0); faults are injected into the sides that are `injected`.

        With `together`, two resident workers load and quantize at the same time (see `builds_together`).
        Raises SideError where a worker fails or the sides compute on different devices. No worker outlives
        the call.
        """
        resident = partial(self._resident, together=together)
        try:
            processes = (resident if schedule is Schedule.RESIDENT else self._by_process)(planned, index)
        except SideError:
            for launcher in self.launchers.values():
                launcher.raise_if_aborted()
            raise
        _require_one_device(processes)
        return Pair(stable=processes[Side.STABLE], candidate=processes[Side.CANDIDATE])

    def _resident(self, planned: Planned, index: int, *, together: bool) -> dict[Side, Process]:
        with ExitStack() as stack:
            workers = {
                side: stack.enter_context(self._worker(planned, side, index)) for side in process_order(index)
            }
            # Both are ready before anything loads: a starting worker checks that the GPU is idle.
            for side, worker in workers.items():
                self._greet(worker, planned, side, index)
            replicates = {
                side: self._replicate(worker, planned, side, index) for side, worker in workers.items()
            }
            _build(replicates, at_once=len(replicates) if together else 1)
            for side, replicate in replicates.items():
                with _attributed_to(side):
                    replicate.warm_up(self.warmups)
            for side in order(GENERATIONS):
                with _attributed_to(side):
                    replicates[side].sample()
            return {
                side: _without_shared_metrics(self._inspected(side, replicate))
                for side, replicate in replicates.items()
            }

    def _by_process(self, planned: Planned, index: int) -> dict[Side, Process]:
        return {side: self._one(planned, side, index, layers=False) for side in process_order(index)}

    def alone(self, planned: Planned, side: Side, index: int) -> Process:
        """Measure the case in one worker of one side, which has the card for itself.

        `index` names its log. Raises SideError where the worker fails.
        """
        try:
            return self._one(planned, side, index, layers=True)
        except SideError:
            self.launchers[side].raise_if_aborted()
            raise

    @contextmanager
    def warmed_up(
        self, planned: Planned, side: Side, index: int, *, layers: bool = False
    ) -> Iterator[Replicate]:
        """The case in one worker of one side, which has the card for itself and has generated untimed.

        Quantized layers are compared with their bf16 twins only with `layers`: a pair is judged by times, and
        the 504 layers of FLUX.1-dev would take a tenth of its seconds. Raises SideError where the worker
        fails, also in the context; it does not outlive it.
        """
        with self._worker(planned, side, index) as worker:
            self._greet(worker, planned, side, index)
            replicate = self._replicate(worker, planned, side, index)
            with _attributed_to(side):
                replicate.build(layers=layers)
                replicate.warm_up(self.warmups)
                yield replicate

    def _one(self, planned: Planned, side: Side, index: int, *, layers: bool) -> Process:
        with self.warmed_up(planned, side, index, layers=layers) as replicate:
            for _ in range(GENERATIONS):
                replicate.sample()
            return self._inspected(side, replicate)

    @contextmanager
    def _worker(self, planned: Planned, side: Side, index: int) -> Iterator[Worker]:
        """A worker of one side, which is still importing when the context is entered."""
        launcher, stem = self.launchers[side], self._stem(planned, side)
        try:
            with _attributed_to(side):
                worker = launcher.spawn(planned, stem, index)
            with worker:
                yield worker
        except BaseException:  # the worker may have been killed while it was writing
            launcher.files.discard_cache(stem)
            raise

    def _greet(self, worker: Worker, planned: Planned, side: Side, index: int) -> None:
        with _attributed_to(side):
            self.launchers[side].greet(worker, planned, index)

    def _replicate(self, worker: Worker, planned: Planned, side: Side, index: int) -> Replicate:
        """The case in a worker of one side that is ready."""
        launcher, stem = self.launchers[side], self._stem(planned, side)
        planned = planned if side in self.injected else replace(planned, injections=())
        with _attributed_to(side):
            made = made_twin(launcher, planned, stem, index)
        log, plan = launcher.files.log_name(stem, index), launcher.files.plan_of(planned.case, worker)
        return Replicate(worker, planned, log, plan=plan, index=index, watch=launcher.watch, made=made)

    def _stem(self, planned: Planned, side: Side) -> str:
        return f"{planned.case.id}.{self.names[side]}"

    def _inspected(self, side: Side, replicate: Replicate) -> Process:
        with _attributed_to(side):
            replicate.inspect()
        return replicate.process(self.out)


def _build(replicates: Mapping[Side, Replicate], at_once: int) -> None:
    """Load and quantize, `at_once` at a time; the first failure ends all workers, and so does Ctrl-C."""
    builds: dict[Side, Future[None]] = {}
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for side, replicate in replicates.items():
                builds[side] = pool.submit(partial(replicate.build, layers=False))
            done = all_or_failed(builds.values())
            for side, build in builds.items():
                if build in done:
                    with _attributed_to(side):
                        build.result()
        except BaseException:  # the pool waits for its threads, which wait for their workers
            for replicate in replicates.values():
                replicate.worker.abort()
            raise


@contextmanager
def _attributed_to(side: Side) -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        raise SideError(side, error.failure) from error


def _require_one_device(processes: Mapping[Side, Process]) -> None:
    stable, candidate = (processes[side].environment.unit for side in (Side.STABLE, Side.CANDIDATE))
    if stable != candidate:
        message = (
            f"the stable stack computes on {stable}, the candidate on {candidate}: show both the same device"
        )
        raise SideError(Side.STABLE, Failure(kind=FailureKind.LOAD, phase=Phase.LOAD, message=message))


def _without_shared_metrics(process: Process) -> Process:
    """The process without the numbers that depend on the other worker, so that they are never judged."""
    build = process.build
    alone = msgspec.structs.replace(
        build,
        values={name: value for name, value in build.values.items() if name not in SHARED_METRICS},
        memory={
            phase: msgspec.structs.replace(window, device_mib=None) for phase, window in build.memory.items()
        },
    )
    return msgspec.structs.replace(process, build=alone)
