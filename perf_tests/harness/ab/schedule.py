"""How the two workers of a pair share a card, and in which order they are started and generate; pure."""

from __future__ import annotations

from perf_tests.harness.execution.planned import Planned
from perf_tests.harness.runs.record import Run, Schedule, Side
from perf_tests.protocol.messages import Phase
from perf_tests.protocol.reports import Gpu

RESERVE_MIB = 2048.0
"""Reserve on top of the two peaks: CUDA contexts, and what a stable stack needs beyond the known peak."""
USABLE = 0.92
"""The share of a card's memory that two workers may use together."""
MIB_PER_GIB = 1024
MAY_BE_UNQUANTIZED = frozenset({Phase.LOAD.value, Phase.QUANTIZE.value})
"""Phases in which weights that are not quantized yet may be on the card."""


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
        if phase in MAY_BE_UNQUANTIZED and mib is not None
    ]
    if planned.case.build.recipe.scheme.search is not None or gpu is None or not peaks_mib:
        return False
    return _fits_twice(max(peaks_mib), gpu)


def _fits_twice(peak_mib: float, gpu: Gpu) -> bool:
    return 2 * peak_mib + RESERVE_MIB <= USABLE * gpu.memory_gib * MIB_PER_GIB
