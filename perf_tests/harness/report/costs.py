"""What a session cost: seconds per case and phase, summed over the processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from perf_tests.harness.processes.usage import Usage
from perf_tests.harness.report.terminal import aligned
from perf_tests.harness.report.wording import clipped
from perf_tests.harness.runs.record import Run
from perf_tests.protocol.messages import Phase
from perf_tests.tables.platforms import PLATFORM_BY_ID, Device

ORDER = [phase.value for phase in Phase]
TITLES = {
    Device.CPU: "CPU seconds (host clock) by case and phase, all processes",
    Device.CUDA: "GPU seconds (host clock while the worker held the GPU) by case and phase, all processes",
}


def table(runs: Sequence[Run], references: Sequence[Run] = ()) -> list[str]:
    """One line per case, one per reference (labelled as such), and the total.

    Only phases that some worker reported have a column. Empty where nothing was measured.
    """
    labelled = [
        *((run.id, seconds(run)) for run in runs),
        *((f"{run.id} (reference)", seconds(run)) for run in references),
    ]
    spent = [(label, by_phase) for label, by_phase in labelled if by_phase]
    if not spent:
        return []
    total = _summed(by_phase for _, by_phase in spent)
    phases = sorted(total, key=lambda phase: (ORDER.index(phase) if phase in ORDER else len(ORDER), phase))
    header = ("case", *phases, "total")
    lines = aligned(
        [header, *(_row(label, by_phase, phases) for label, by_phase in (*spent, ("total", total)))],
        right=header[1:],
    )
    return [TITLES[_device((*runs, *references))], *lines]


def briefly(runs: Sequence[Run], references: Sequence[Run], width: int) -> list[str]:
    """One line: the seconds of all cases and references by phase. Empty where nothing was measured."""
    total = _summed(map(seconds, (*runs, *references)))
    if not total:
        return []
    device = {Device.CPU: "CPU", Device.CUDA: "GPU"}[_device((*runs, *references))]
    phases = sorted(total, key=lambda phase: ORDER.index(phase) if phase in ORDER else len(ORDER))
    named = ", ".join(f"{phase} {total[phase]:,.0f}" for phase in phases)
    return [clipped(f"{device} seconds, all processes: {sum(total.values()):,.0f} ({named})", width)]


def usage(lanes: Mapping[str | None, Usage], names: Mapping[str, str]) -> list[str]:
    """One line for each device: how much of its time workers held it. `lanes` is by UUID, None for the only
    device, and `names` says what several cards are called."""
    return [
        f"{names.get(unit or '', unit or 'the device')}: {seen.wall_s:,.0f} s from its first worker to its "
        f"last: {seen.held_s:,.0f} s held, {seen.importing_s:,.0f} s for imports, {seen.idle_s:,.0f} s idle "
        f"({seen.unused_pct:.1f} % not held)"
        for unit, seen in lanes.items()
    ]


def tuning(runs: Iterable[Run]) -> list[str]:
    """One line: for how many products kernels had to be chosen by timing. Empty where for none."""
    caches = [process.build.cache for run in runs for process in run.processes]
    tuned = [cache.tuned for cache in caches if cache is not None and cache.tuned is not None]
    if not tuned:
        return []
    misses, hits = (sum(each.misses for each in tuned), sum(each.hits for each in tuned))
    return [f"kernels chosen by timing: for {misses} products now, for {hits} before (--perf-compile-cache)"]


def seconds(run: Run) -> dict[str, float]:
    """Phase -> seconds of host time, summed over the processes of `run`."""
    return _summed(process.build.seconds for process in run.processes)


def _device(runs: Sequence[Run]) -> Device:
    return PLATFORM_BY_ID[runs[0].platform].device


def _summed(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for phase, spent in part.items():
            total[phase] = total.get(phase, 0.0) + spent
    return total


def _row(label: str, by_phase: dict[str, float], phases: Sequence[str]) -> tuple[str, ...]:
    cells = (f"{by_phase[phase]:,.1f}" if phase in by_phase else "-" for phase in phases)
    return (label, *cells, f"{sum(by_phase.values()):,.1f}")
