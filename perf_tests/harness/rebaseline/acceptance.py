"""What an accepted case rests on, in a sentence: how many processes, how far apart, on how busy a host."""

from __future__ import annotations

import math
from collections.abc import Iterator

from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.runs.record import Run
from perf_tests.harness.stats import location, precision
from perf_tests.protocol.reports import Telemetry
from perf_tests.tables.metrics.rows import NOISY


def sentence(run: Run, entry: Entry, runs: int) -> str:
    """What `entry`, made of `run` from the processes of so many runs, rests on."""
    told = (_processes(entry, runs), _spread(entry), _generations(run), _load(run))
    return f"{run.id}: {', '.join(each for each in told if each)}"


def _processes(entry: Entry, runs: int) -> str:
    count = "1 process" if entry.processes == 1 else f"{entry.processes} processes"
    of_runs = f" of {runs} runs" if runs > 1 else ""
    return f"{count}{of_runs}{' (provisional)' if entry.provisional else ''}"


def _spread(entry: Entry) -> str:
    spread = {
        name: 100.0 * math.sqrt(location.log_variance(entry.metrics[name]))
        for name in sorted(NOISY & entry.metrics.keys())
        if len(entry.metrics[name]) > 1
    }
    apart = ", ".join(f"{name} {sd_pct:.2f} %" for name, sd_pct in spread.items())
    return f"standard deviation between them {apart}" if apart else ""


def _generations(run: Run) -> str:
    noise_pct = precision.generation_noise_pct(run)
    return f"generations of a process {noise_pct:.2f} % apart" if noise_pct else ""


def _load(run: Run) -> str:
    readings = tuple(_telemetry(run))
    told = (
        _most("load {:.2f} per core", [each.load_per_core for each in readings]),
        _most("{:.1f} % of a generation some task waited for a core", [e.cpu_pressure_pct for e in readings]),
        _most("{:.1f} % of one without a core for kernel launches", [e.launch_delay_pct for e in readings]),
    )
    return ", ".join(each for each in told if each)


def _most(words: str, readings: list[float | None]) -> str:
    known = [each for each in readings if each is not None]
    return f"at most {words.format(max(known))}" if known else ""


def _telemetry(run: Run) -> Iterator[Telemetry]:
    for process in run.processes:
        for sample in process.samples:
            if sample.telemetry is not None:
                yield sample.telemetry
