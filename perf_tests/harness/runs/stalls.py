"""Which images of a process took far longer than its others, and what the host did meanwhile; pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from perf_tests.harness.runs import validity
from perf_tests.harness.runs.projection import LATENCIES
from perf_tests.harness.runs.record import Process
from perf_tests.protocol.reports import Sample

STALL_RATIO = 1.5
"""An image stalled if it took more than this times the median of its process; undisturbed ones lie within a
few percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stall:
    """One image that stalled."""

    index: int
    """Of its sample in the process, from 0; those that were taken again follow the others."""
    ratio: float
    """Its time over the median of its process."""
    was_retaken: bool
    pressure_pct: float | None
    """Share of it in which some task waited for a processor; None where the kernel did not tell."""

    @property
    def text(self) -> str:
        """`2.1 times the median while tasks waited for a processor 3 % of the time`."""
        if self.pressure_pct is None:
            return f"{self.ratio:.1f} times the median, the pressure on the host not known"
        waited = f"tasks waited for a processor {self.pressure_pct:.0f} % of the time"
        return f"{self.ratio:.1f} times the median while {waited}"


def generation_s(sample: Sample) -> float | None:
    """What the generation itself took, where `latency_s` is composed for more steps; None where it is not
    known."""
    for name in (LATENCIES["latency_s"], "latency_s"):
        if values := sample.values.get(name):
            return values[0]
    return None


def stalled(samples: Sequence[Sample], retaken: Sequence[Sample]) -> tuple[Stall, ...]:
    """The stalled images among the `samples` of a process and those that were `retaken`.

    Those whose telemetry says why they are invalid do not count: that they are slow is explained.
    """
    images = [(sample, generation_s(sample)) for sample in (*samples, *retaken)]
    known_s = [seconds for _, seconds in images if seconds is not None]
    if not known_s:
        return ()
    median_s = statistics.median(known_s)
    return tuple(
        Stall(
            index=index,
            ratio=seconds / median_s,
            was_retaken=index >= len(samples),
            pressure_pct=sample.telemetry.cpu_pressure_pct if sample.telemetry else None,
        )
        for index, (sample, seconds) in enumerate(images)
        if seconds is not None and seconds > STALL_RATIO * median_s and not validity.reasons(sample)
    )


def of_process(process: Process) -> tuple[Stall, ...]:
    """The stalled images of a measured process."""
    return stalled(process.samples, process.retaken)
