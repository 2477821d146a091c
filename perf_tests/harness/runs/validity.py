"""Whether a number can be trusted at all, before anyone asks whether it is good; pure.

A sample is invalid if the GPU was slowed down, if its memory had errors, or if other processes used the GPU
or kept the host busy. Power capping does not make it invalid: at full load it is the normal state, and the
clock shows what it costs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from perf_tests.harness.runs.record import Process, Run
from perf_tests.protocol.nvml import IDLE_UTILIZATION_PCT
from perf_tests.protocol.reports import Sample, Telemetry
from perf_tests.tables.metrics.spec import STEP
from perf_tests.tables.platforms import Platform
from perf_tests.tables.schemes.spec import Scheme

RETAKES = 2
"""How many invalid samples of one process are taken again."""

SLOWDOWNS = frozenset({"HwSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown", "SwThermalSlowdown"})
"""Throttle reasons that make a time worthless. SwPowerCap is not one of them: at full load it is normal."""
SLOWDOWN_COUNTERS = frozenset({"thermal", "sw_thermal", "hw_thermal", "hw_power_brake"})
"""Causes in `Telemetry.throttled_ms` that make a time worthless. Board and reliability limits only cap the
clock."""

FOREIGN_MIB = 200.0
"""A CUDA context takes more; the code that a warm worker still loads takes less."""
FOREIGN_BEFORE_MIB = 1024.0
"""Two contexts without any data: anything above belongs to another process."""
CPU_PRESSURE_PCT = 25.0
"""Share of a generation in which some task waited for a processor: beyond it, the thread that launches
kernels has had to wait as well."""
LAUNCH_DELAY_PCT = 5.0
"""Share of a generation in which the thread that launches kernels itself waited for a processor: more than an
undisturbed thread with cores of its own ever does."""
LOAD_PER_CORE = 1.5
"""Limit on the load average where the kernel reports no pressure; compiling alone brings it to 1."""
TIMEOUT_PRESSURE_PCT = 50.0
"""Share of the wait for an answer in which some task waited for a processor: beyond it, the host explains
that no answer came. A worker that hangs, or spins, makes nobody wait; and the limits of the phases are
several times what they take on a host that does nothing else."""
TIMEOUT_LOAD_PER_CORE = 2.0
"""Limit where the kernel reports no pressure: every processor had a second task to serve. A worker brings the
load to 1 by itself."""

CONTROL_TOLERANCE_PCT = 2.0
"""The control's two kernels repeat within half a percent on an undisturbed card."""
CONTROLS = {"control_gemm_ms": "GEMM", "control_attention_ms": "attention"}
"""Metric of the control -> its name in a sentence."""
CONTROL_CLOCK = "control_sm_clock_mhz"
SAMPLE_CLOCK = "mean_sm_clock_mhz"

Values = Mapping[str, Sequence[float]]


# Samples


def reasons(sample: Sample, during: str = "", *, host: bool = True) -> tuple[str, ...]:
    """Why the times of `sample` cannot be trusted, one clause each; empty if it is valid or has no telemetry.

    `during` is inserted to say when, as in `" during process 2"`. Without `host`, only the device counts.
    """
    telemetry = sample.telemetry
    if telemetry is None:
        return ()
    found = (check(telemetry, during) for check in (CHECKS if host else DEVICE_CHECKS))
    return tuple(reason for reason in found if reason is not None)


def must_retake(sample: Sample, retaken: int) -> bool:
    """Whether to replace this sample by another one, after `retaken` samples of its process were replaced."""
    return retaken < RETAKES and bool(reasons(sample))


def invalidity(run: Run, *, host: bool = True) -> str | None:
    """Why the times of `run` cannot be trusted; None if they can. Without `host`, only the device counts."""
    found = (_of_process(number, process, host=host) for number, process in enumerate(run.processes, start=1))
    return next((why for why in found if why is not None), None)


def busy_host(run: Run) -> str | None:
    """Whether the host kept the GPU waiting in any process of `run`; None where it did not."""
    for number, process in enumerate(run.processes, start=1):
        for sample in process.samples:
            if sample.telemetry and (why := _busy_host(sample.telemetry, f" during process {number}")):
                return why
    return None


def _of_process(number: int, process: Process, *, host: bool) -> str | None:
    during = f" during process {number}"
    for sample in process.samples:
        if found := reasons(sample, during, host=host):
            retaken = len(process.retaken)
            again = f" ({retaken} earlier samples were taken again)" if retaken else ""
            return "; ".join(found) + again
    return _too_fast(process, during)


def _too_fast(process: Process, during: str) -> str | None:
    floor_ms = process.build.roofline_ms
    steps_ms = [statistics.median(s.values[STEP]) for s in process.samples if s.values.get(STEP)]
    if floor_ms is None or not steps_ms or min(steps_ms) >= floor_ms:
        return None
    return (
        f"a denoise step took {min(steps_ms):.4g} ms{during}, and its {_tflop(process)}cannot take less than "
        f"{floor_ms:.4g} ms on this GPU: part of the work was skipped, or the clock is wrong"
    )


def _tflop(process: Process) -> str:
    tflop = process.build.values.get("step_tflop")
    return "work " if tflop is None else f"{tflop:.4g} TFLOP "


def _slowed_down(telemetry: Telemetry, during: str) -> str | None:
    named = sorted(SLOWDOWNS.intersection(telemetry.throttle_reasons or ()))
    counted = [
        f"{cause} for {ms:.4g} ms"
        for cause, ms in sorted(telemetry.throttled_ms.items())
        if cause in SLOWDOWN_COUNTERS and ms > 0
    ]
    if not named and not counted:
        return None
    return f"the GPU was throttled{during}: {', '.join((*named, *counted))}"


def _failing_memory(telemetry: Telemetry, during: str) -> str | None:
    counted = [f"{count} {kind}" for kind, count in sorted(telemetry.ecc_errors.items()) if count > 0]
    return f"the GPU's memory had ECC errors{during}: {', '.join(counted)}" if counted else None


def _crowded(telemetry: Telemetry, during: str) -> str | None:
    if telemetry.foreign_processes is None:
        return _crowded_by_number(telemetry.compute_processes, during)
    if not telemetry.foreign_processes:
        return None
    return f"others were on the GPU{during}: {', '.join(telemetry.foreign_processes)}"


def _crowded_by_number(processes: int | None, during: str) -> str | None:
    """For processes that NVML counts without saying whose they are."""
    if processes is None or processes <= 1:
        return None
    return f"{processes} processes computed on the GPU{during}, where the worker should have been alone"


def _disturbed_unseen(telemetry: Telemetry, during: str) -> str | None:
    """The traces that unlisted processes leave: a container may list only its own."""
    moved_mib, before_mib = telemetry.unaccounted_mib or 0.0, telemetry.allocated_before_mib or 0.0
    busy_pct = telemetry.idle_utilization_pct or 0.0
    signs = (
        (
            f"memory in use changed by {moved_mib:+.0f} MiB that are not the worker's",
            abs(moved_mib) > FOREIGN_MIB,
        ),
        (f"{before_mib:.0f} MiB were in use before the worker started", before_mib > FOREIGN_BEFORE_MIB),
        (f"it was already {busy_pct:.0f} % busy", busy_pct > IDLE_UTILIZATION_PCT),
    )
    seen = ", ".join(sign for sign, holds in signs if holds)
    return f"others used the GPU{during}: {seen}" if seen else None


def _busy_host(telemetry: Telemetry, during: str) -> str | None:
    if telemetry.launch_delay_pct is not None:
        return _delayed(telemetry.launch_delay_pct, during)
    pressure_pct, load = telemetry.cpu_pressure_pct, telemetry.load_per_core
    if (load or 0.0) <= LOAD_PER_CORE if pressure_pct is None else pressure_pct <= CPU_PRESSURE_PCT:
        return None
    return f"the host was busy{during}: {how_busy(pressure_pct, load or 0.0)}"


def _delayed(delay_pct: float, during: str) -> str | None:
    if delay_pct <= LAUNCH_DELAY_PCT:
        return None
    return f"the thread that launches kernels had no processor for {delay_pct:.0f} % of the time{during}"


def how_busy(pressure_pct: float | None, load: float) -> str:
    """How busy the host was, as a clause; `load` is per processor and counts where pressure is unknown."""
    if pressure_pct is None:
        return f"the load was {load:.2f} per processor"
    return f"tasks waited for a processor {pressure_pct:.0f} % of the time"


def excuse_of_timeout(pressure_pct: float | None, load: float) -> str:
    """Why a worker's silence says nothing about the stack under test; empty where it does.

    `pressure_pct` is the pressure over the wait, None where it is unknown; `load` is the load per processor.
    """
    busy = load > TIMEOUT_LOAD_PER_CORE if pressure_pct is None else pressure_pct > TIMEOUT_PRESSURE_PCT
    if not busy:
        return ""
    return "the host was too busy to call that a hang, measure again when it is not"


DEVICE_CHECKS: tuple[Callable[[Telemetry, str], str | None], ...] = (
    _slowed_down,
    _failing_memory,
    _crowded,
    _disturbed_unseen,
)
CHECKS = (*DEVICE_CHECKS, _busy_host)


# Roofline


def roofline_ms(step_tflop: float | None, *, scheme: Scheme, platform: Platform) -> float | None:
    """Milliseconds that a denoise step takes at least: its work at the peak of the type its GEMMs multiply.

    A true bound but a loose one: it assumes that attention, which no scheme quantizes, also runs at that
    peak, and that memory costs nothing. None where the work was not counted or the platform states no such
    peak. Williams et al., "Roofline", CACM 52(4), 2009.
    """
    peak_tflops = platform.peak_tflops.get(scheme.gemm)
    return None if step_tflop is None or peak_tflops is None else step_tflop / peak_tflops * 1e3


# Clocks


def in_cycles(
    change_pct: float, *, limit_pct: float, clocks_mhz: Sequence[float], baseline_mhz: Sequence[float]
) -> str | None:
    """A clause about a slowdown of `change_pct` that vanishes when counted in cycles (time x mean SM clock).

    None for one that still exceeds `limit_pct`, or without clocks. It explains a slowdown but does not excuse
    it: code that burns more power lowers the clock.
    """
    if not clocks_mhz or not baseline_mhz:
        return None
    now_mhz, then_mhz = statistics.median(clocks_mhz), statistics.median(baseline_mhz)
    if min(now_mhz, then_mhz) <= 0:
        return None
    cycles_pct = ((1 + change_pct / 100) * now_mhz / then_mhz - 1) * 100
    if cycles_pct > limit_pct:
        return None
    return (
        f"vanishes in cycles ({cycles_pct:+.2f} % at {now_mhz:.0f} MHz, {then_mhz:.0f} MHz in the baseline): "
        "the code burns more power, or the card ran slower"
    )


def sample_clocks_mhz(run: Run) -> tuple[float, ...]:
    """Mean SM clock of each process (the median over its samples), without processes that have none."""
    by_process = (
        [mhz for sample in process.samples for mhz in sample.values.get(SAMPLE_CLOCK, ())]
        for process in run.processes
    )
    return tuple(statistics.median(clocks) for clocks in by_process if clocks)


# The control


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlChange:
    """How the control changed since the baseline: the same kernels, independent of the code under test."""

    change_pct: dict[str, float]
    """Metric -> change of its median, in percent of the baseline's; empty without anything to compare."""
    clock_pct: float | None
    """Change of the SM clock in percent; None where it is not known for both."""
    tolerance_pct: float

    @property
    def moved(self) -> bool:
        """Whether the machine itself became faster or slower, which must be said before anything else."""
        return any(abs(pct) > self.tolerance_pct for pct in self.change_pct.values())

    @property
    def text(self) -> str:
        """One sentence for the report."""
        if not self.change_pct:
            return "the control has nothing to compare with"
        moves = ", ".join(f"{CONTROLS[name]} {pct:+.1f} %" for name, pct in self.change_pct.items())
        clock = "" if self.clock_pct is None else f", SM clock {self.clock_pct:+.1f} %"
        if not self.moved:
            return f"the control did not move ({moves}{clock}; tolerance {self.tolerance_pct:g} %)"
        return (
            f"the control moved ({moves}{clock}; tolerance {self.tolerance_pct:g} %): the card, its driver "
            "or the libraries became slower or faster, independent of the code under test"
        )


def control(now: Values, baseline: Values, tolerance_pct: float = CONTROL_TOLERANCE_PCT) -> ControlChange:
    """How the control's values `now` differ from those of the `baseline`.

    Both are metric name -> value per process; other metrics than the control's are ignored. The default
    `tolerance_pct` is for the card that the baseline was taken on; for another card pass the platform's.
    """
    changes = {name: _change_pct(now, baseline, name) for name in (*CONTROLS, CONTROL_CLOCK)}
    clock_pct = changes.pop(CONTROL_CLOCK)
    known = {name: pct for name, pct in changes.items() if pct is not None}
    return ControlChange(change_pct=known, clock_pct=clock_pct, tolerance_pct=tolerance_pct)


def control_values(runs: Iterable[Run]) -> dict[str, list[float]]:
    """Metric name -> the control's value in each process of `runs`."""
    values = [process.build.values for run in runs for process in run.processes]
    return {name: [each[name] for each in values if name in each] for name in (*CONTROLS, CONTROL_CLOCK)}


def _change_pct(now: Values, baseline: Values, name: str) -> float | None:
    if not now.get(name) or not baseline.get(name):
        return None
    before = statistics.median(baseline[name])
    return None if before <= 0 else (statistics.median(now[name]) / before - 1) * 100
