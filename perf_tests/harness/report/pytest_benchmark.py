"""Replays measured samples into pytest-benchmark, so that its JSON, tables, comparisons and plots show them.

The times were measured on the device, in a worker process. pytest-benchmark reads them through its own
`timer` option, from a clock that moves only when the replayed target sets it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from perf_tests.harness.records.fidelity import Fidelity
from perf_tests.harness.runs.record import Process, Run
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.reports import Environment

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture


class ReplayClock:
    """A timer for pytest-benchmark that returns the seconds it was set to."""

    __name__ = "replayed"  # how pytest-benchmark's JSON names the timer

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


CLOCK = ReplayClock()
"""Every test that calls `replay` must carry the marker `pytest.mark.benchmark(timer=CLOCK)`. One clock serves
the whole session: each round sets it back to zero, and pytest runs one test at a time."""


def replay(benchmark: BenchmarkFixture, seconds: Sequence[float]) -> None:
    """Record `seconds` unchanged, one round each; with `--benchmark-disable`, record nothing.

    Raises UsageError without samples, and for a test that is not marked with the clock: pytest-benchmark
    would time the replay itself.
    """
    if not seconds:
        raise UsageError(f"{benchmark.name}: no samples to hand to pytest-benchmark; replay at least one")
    samples = itertools.cycle(seconds)  # endless, since --benchmark-cprofile asks for more than the rounds

    def rewind() -> None:
        CLOCK.seconds = 0.0

    def elapse() -> None:
        CLOCK.seconds = next(samples)

    benchmark.pedantic(elapse, setup=rewind, rounds=len(seconds), iterations=1, warmup_rounds=0)
    if benchmark.stats is not None and benchmark.stats.stats.data != list(seconds):
        raise UsageError(
            f"{benchmark.name}: pytest-benchmark did not record the {len(seconds)} times it was given; "
            "mark the test with pytest.mark.benchmark(timer=CLOCK)"
        )


def device_latencies_s(run: Run) -> list[float]:
    """The device time of every generation of `run`, process by process."""
    samples = (sample for process in run.processes for sample in process.samples)
    return [second for sample in samples for second in sample.values.get("device_latency_s", ())]


def extra_info(run: Run) -> dict[str, Any]:
    """What pytest-benchmark's JSON says of a case next to its times, in the units that the names give."""
    return {
        "case": run.id,
        "digest": run.digest,
        "platform": run.platform,
        "status": run.status.value,
        "reason": run.reason,
        "reference": run.reference,
        "injected": list(run.injected),
        "verdicts": {
            verdict.metric: {"status": verdict.status.value, "measured": verdict.measured}
            for verdict in run.verdicts
        },
        "memory": [_memory(process) for process in run.processes],
        "fidelity": [_fidelity(process.fidelity) for process in run.processes],
    }


def _memory(process: Process) -> dict[str, dict[str, float | None]]:
    """Phase of the build -> its memory peaks in MiB, None where one was not measured."""
    return {phase: msgspec.to_builtins(window) for phase, window in process.build.memory.items()}


def _fidelity(fidelity: Fidelity | None) -> Mapping[str, float | bool | None] | None:
    return None if fidelity is None else msgspec.to_builtins(fidelity)


MACHINE_INFO = ("cpu", "unit", "gpu", "packages", "settings", "variables")
"""The keys of what `machine_info` returns."""


def machine_info(environment: Environment) -> dict[str, Any]:
    """The device and the stack, to be added to pytest-benchmark's own description of the machine.

    `cpu` replaces the entry of the same name, whose momentary clock rate makes any two runs look like runs on
    different machines.
    """
    return {
        "cpu": {"brand_raw": environment.cpu_model, "count": environment.cpu_count},
        "unit": environment.unit,
        "gpu": msgspec.to_builtins(environment.gpu),
        "packages": dict(environment.packages),
        "settings": dict(environment.settings),
        "variables": dict(environment.variables),
    }
