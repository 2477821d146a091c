"""A/B on one device: fresh pairs of workers, one under each interpreter, measured interleaved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from perf_tests.harness.execution.campaign import Campaign
from perf_tests.harness.execution.launcher import Launcher
from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.execution.replicate import BUILT, Replicate
from perf_tests.harness.execution.shared_worker import made_twin
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.record import (
    REASON_OF_PROGRESS,
    Comparison,
    Pair,
    Process,
    Progress,
    Run,
    Schedule,
    Side,
    Status,
)
from perf_tests.harness.runs.validity import CONTROL_CLOCK, CONTROLS
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Phase
from perf_tests.protocol.reports import Environment, Gpu

GENERATIONS = 4
"""Timed generations of each side in a pair, as A B B A A B B A: a linear drift favours neither side."""
MIN_PAIRS, MAX_PAIRS = 5, 10
"""Fresh pairs before a comparison is first judged, and the most while it is undecided."""
RESERVE_MIB = 2048.0
"""Reserve on top of the two peaks: CUDA contexts, and what a stable stack needs beyond the known peak."""
USABLE = 0.92
"""The share of a card's memory that two workers may use together."""
SHARED_METRICS = frozenset({"peak_device_mib", *CONTROLS, CONTROL_CLOCK})
"""Metrics that depend on both workers: a counter of the whole card, kernels timed while the other loads."""
MIB_PER_GIB = 1024

Judge = Callable[[Comparison], Comparison | None]
"""Called after each pair and each failure. Returns the comparison with verdicts, None for one more pair."""
Refuse = Callable[[str], str | None]
"""Called before each pair with the case's id. Returns why there is no further pair, or None."""


def order(generations: int) -> tuple[Side, ...]:
    """Which side generates next, for that many generations of each side: A B B A A B B A ..."""
    return tuple(Side.STABLE if index % 4 in (0, 3) else Side.CANDIDATE for index in range(2 * generations))


def process_order(index: int) -> tuple[Side, Side]:
    """The order in which the workers of the pair `index` (from 0) are started: over two pairs A B B A."""
    return (Side.STABLE, Side.CANDIDATE) if index % 2 == 0 else (Side.CANDIDATE, Side.STABLE)


def schedule_of(peak_mib: float | None, gpu: Gpu | None) -> tuple[Schedule, str]:
    """How the two workers of a case share the card, and why.

    `peak_mib` is the largest known peak of one worker, None where none is known.
    """
    if peak_mib is None or gpu is None:
        return Schedule.BY_PROCESS, "it is not known how much of a card's memory the case takes"
    fits = _fits_twice(peak_mib, gpu)
    return (
        Schedule.RESIDENT if fits else Schedule.BY_PROCESS,
        f"2 x {peak_mib:.0f} MiB + {RESERVE_MIB:.0f} MiB {'fit' if fits else 'do not fit'} in "
        f"{100 * USABLE:.0f} % of {gpu.memory_gib * MIB_PER_GIB:.0f} MiB",
    )


def builds_together(planned: Planned, run: Run) -> bool:
    """Whether two resident workers of a case may load and quantize at the same time.

    `run` was measured by one worker alone. They may not where quantizing times kernels, nor where twice the
    peak of these phases is not known to fit: unquantized weights may take more than the schedule allows for.
    """
    gpu = run.processes[0].environment.gpu
    peaks_mib = [
        mib
        for process in run.processes
        for phase, window in process.build.memory.items()
        for mib in (window.reserved_mib, window.device_mib)
        if phase in BUILT and mib is not None
    ]
    if planned.case.build.recipe.scheme.search is not None or gpu is None or not peaks_mib:
        return False
    return _fits_twice(max(peaks_mib), gpu)


def _fits_twice(peak_mib: float, gpu: Gpu) -> bool:
    return 2 * peak_mib + RESERVE_MIB <= USABLE * gpu.memory_gib * MIB_PER_GIB


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

    def environment(self, side: Side) -> Environment | None:
        """What the first worker of the side reported; None before one did."""
        return self.launchers[side].environment

    def measure(self, planned: Planned, index: int, schedule: Schedule, *, together: bool = False) -> Pair:
        """Measure the pair `index` (from 0); faults are injected into the candidate only.

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
        processes = {}
        for side in process_order(index):
            with self._worker(planned, side, index) as worker:
                self._greet(worker, planned, side, index)
                replicate = self._replicate(worker, planned, side, index)
                with _attributed_to(side):
                    replicate.build()
                    replicate.warm_up(self.warmups)
                    for _ in range(GENERATIONS):
                        replicate.sample()
                processes[side] = self._inspected(side, replicate)
        return processes

    @contextmanager
    def _worker(self, planned: Planned, side: Side, index: int) -> Iterator[Worker]:
        """A worker of one side, which is still importing when the context is entered."""
        launcher, stem = self.launchers[side], f"{planned.case.id}.{side}"
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
        launcher, stem = self.launchers[side], f"{planned.case.id}.{side}"
        planned = planned if side is Side.CANDIDATE else replace(planned, injections=())
        with _attributed_to(side):
            made = made_twin(launcher, planned, stem, index)
        log, plan = launcher.files.log_name(stem, index), launcher.files.plan_of(planned.case, worker)
        return Replicate(worker, planned, log, plan=plan, index=index, watch=launcher.watch, made=made)

    def _inspected(self, side: Side, replicate: Replicate) -> Process:
        with _attributed_to(side):
            replicate.inspect()
        return replicate.process(self.out)


class PairCampaign:
    """Compares measured cases of a campaign with another stack, in the campaign's record."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign, self._comparisons = campaign, campaign.store.comparisons

    def begin(self, case_id: str, against: str, known_peak_mib: float | None) -> Comparison:
        """The comparison of a measured case before its first pair.

        `against` is the interpreter of the stable stack. A resumed session gets its finished comparison back
        where nothing that it depends on has changed. Raises what `Campaign.run` raises.
        """
        run = self._campaign.run(case_id)
        schedule, why = schedule_of(known_peak_mib, run.processes[0].environment.gpu)
        start = Comparison(
            id=run.id,
            digest=run.digest,
            platform=run.platform,
            pipeline=run.pipeline,
            against=against,
            status=Status.INCONCLUSIVE,
            reason=REASON_OF_PROGRESS[Progress.PLANNED],
            injected=run.injected,
            schedule=schedule,
            schedule_reason=why,
            candidate=run.processes[0].environment,
        )
        earlier = self._comparisons.get(case_id)
        return earlier if earlier is not None and _is_settled(earlier, start) else start

    def compare(self, start: Comparison, runner: PairRunner, judge: Judge, refuse: Refuse) -> Comparison:
        """Measure pairs until `judge` has enough of them or `refuse` gives a reason to stop.

        The record is written after each pair. A comparison with verdicts is returned as it is. A failing side
        ends the comparison with its failure. Raises PerfError where the record cannot be written.
        """
        if start.verdicts:
            return start
        comparison, judged = start, None
        while judged is None:
            assert len(comparison.pairs) < MAX_PAIRS, "the rule decides at the last pair"
            if why := refuse(comparison.id):
                judged = msgspec.structs.replace(comparison, reason=f"{_after(comparison)}{why}")
            else:
                comparison = self._one_pair(comparison, runner)
                judged = judge(comparison)
            self._comparisons[comparison.id] = judged or comparison
            self._campaign.store.write()
        return judged

    def _one_pair(self, comparison: Comparison, runner: PairRunner) -> Comparison:
        planned = self._campaign.planned[comparison.id]
        together = builds_together(planned, self._campaign.run(comparison.id))
        try:
            pair = runner.measure(planned, len(comparison.pairs), comparison.schedule, together=together)
        except SideError as error:
            return _with_environments(_failed(comparison, error), runner)
        except BaseException:  # Ctrl-C, SIGTERM or a full disk: complete pairs are kept
            reason = f"{_after(comparison)}{REASON_OF_PROGRESS[Progress.INTERRUPTED]}"
            stopped = msgspec.structs.replace(comparison, reason=reason)
            self._comparisons[comparison.id] = _with_environments(stopped, runner)
            raise
        with_pair = msgspec.structs.replace(comparison, pairs=(*comparison.pairs, pair))
        return _with_environments(with_pair, runner)


def _is_settled(earlier: Comparison, now: Comparison) -> bool:
    names = ("digest", "platform", "against", "injected")
    same = all(getattr(earlier, name) == getattr(now, name) for name in names)
    return same and bool(earlier.verdicts) and earlier.failure is None


def _failed(comparison: Comparison, error: SideError) -> Comparison:
    """A comparison that starts again by process where two workers did not fit; otherwise it has failed."""
    if comparison.schedule is Schedule.RESIDENT and error.failure.kind is FailureKind.OOM:
        return msgspec.structs.replace(
            comparison,
            pairs=(),  # earlier ones have another schedule
            schedule=Schedule.BY_PROCESS,
            schedule_reason=f"out of memory with both resident ({error.side}): {error.failure.message}",
        )
    return msgspec.structs.replace(comparison, failure=error.failure, failed_side=error.side)


def _with_environments(comparison: Comparison, runner: PairRunner) -> Comparison:
    return msgspec.structs.replace(
        comparison,
        stable=runner.environment(Side.STABLE) or comparison.stable,
        candidate=runner.environment(Side.CANDIDATE) or comparison.candidate,
    )


def _after(comparison: Comparison) -> str:
    count = len(comparison.pairs)
    return f"after {count} {'pair' if count == 1 else 'pairs'}: " if count else ""


def _build(replicates: Mapping[Side, Replicate], at_once: int) -> None:
    """Load and quantize, `at_once` at a time; the first failure ends all workers, and so does Ctrl-C."""
    builds: dict[Side, Future[None]] = {}
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for side, replicate in replicates.items():
                builds[side] = pool.submit(replicate.build)
            done, _ = wait(builds.values(), return_when=FIRST_EXCEPTION)
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
