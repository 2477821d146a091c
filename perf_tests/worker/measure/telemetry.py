"""The state of the GPU and its host around a generation: read before and after it, never during it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import pynvml
import torch

from perf_tests.protocol import nvml, pressure
from perf_tests.protocol.reports import Gpu, Telemetry
from perf_tests.worker.measure import host

MIB = 1 << 20
SHARES_HOST = pressure.HOST_SHARED in os.environ
"""Whether the session measures on other cards of the host, too."""
FORGET_S, LOOK_S = 2.0, 0.1
"""How long the work of the session's previous worker may still count (NVML's utilization is that of up to the
past second), and how often that is looked at."""
HIDDEN = "NVML lists no process, not even this worker: a container hides them"


@dataclass(frozen=True, kw_only=True, slots=True)
class Readings:
    """Readings before a generation, which later readings are compared with."""

    throttled_ns: Mapping[str, int]
    ecc_errors: Mapping[str, int]
    sm_clock_us: int
    """Time of the newest SM clock sample, in NVML's own time."""
    utilization_us: int
    """Time of the newest sample of the processes' utilization, in NVML's own time."""
    unaccounted_mib: float | None
    waiting: pressure.PressureMeter | pressure.DelayMeter


class GpuMonitor:
    """Watches the GPU that torch uses; created before the worker computes on it."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        self._card = nvml.Card(pynvml.nvmlDeviceGetHandleByUUID(uuid))
        # The session's other workers wait: any work or memory on the GPU now is somebody else's.
        self._idle_utilization_pct = _settled_pct(self._card, sleep)
        alone = not host.computing(host.session_pids() - {os.getpid()})
        self._allocated_before_mib = self._card.allocated_mib() if alone else None
        self.begin()

    def describe(self) -> Gpu:
        """Name, UUID and properties of the card."""
        return nvml.describe(self._card.handle)

    def used_mib(self) -> float | None:
        """Memory in use on the whole card; None where NVML does not tell."""
        return self._card.used_mib()

    def begin(self) -> None:
        """Take the readings before a generation; `values` and `read` are relative to them."""
        card = self._card
        self._before = Readings(
            throttled_ns=card.throttled_ns(),
            ecc_errors=card.ecc_errors(),
            sm_clock_us=card.last_sm_clock_us(),
            utilization_us=card.last_utilization_us(),
            unaccounted_mib=self._unaccounted_mib(),
            waiting=pressure.DelayMeter() if SHARES_HOST else pressure.PressureMeter(),
        )

    def values(self) -> dict[str, tuple[float, ...]]:
        """Metric name -> what was measured since `begin`; leaves out what NVML has no samples of."""
        mhz = self._card.mean_sm_clock_mhz(self._before.sm_clock_us)
        return {} if mhz is None else {"mean_sm_clock_mhz": (mhz,)}

    def read(self) -> Telemetry:
        """Everything else, read at once; deltas, means and shares refer to the time since `begin`."""
        card, before = self._card, self._before
        waited_pct = before.waiting.pressure_pct()
        throttled_ns, ecc_errors = card.throttled_ns(), card.ecc_errors()
        processes = card.compute_processes()
        return Telemetry(
            sm_clock_mhz=card.clock_mhz("sm_clock_mhz", pynvml.NVML_CLOCK_SM),
            memory_clock_mhz=card.clock_mhz("memory_clock_mhz", pynvml.NVML_CLOCK_MEM),
            power_w=card.power_w(),
            temperature_c=card.temperature_c(),
            throttle_reasons=card.throttle_reasons(),
            throttled_ms={name: ns / 1e6 for name, ns in _since(before.throttled_ns, throttled_ns).items()},
            throttle_counters=None if card.counters is None else card.counters.name,
            compute_processes=None if processes is None else len(processes),
            foreign_processes=self._foreign(processes),
            device_used_mib=card.used_mib(),
            ecc_errors=_since(before.ecc_errors, ecc_errors),
            unaccounted_mib=_difference(before.unaccounted_mib, self._unaccounted_mib()),
            allocated_before_mib=self._allocated_before_mib,
            idle_utilization_pct=self._idle_utilization_pct,
            load_per_core=pressure.load_per_core(),
            cpu_pressure_pct=None if SHARES_HOST else waited_pct,
            launch_delay_pct=waited_pct if SHARES_HOST else None,
            unavailable=dict(card.unavailable),
        )

    def _unaccounted_mib(self) -> float | None:
        """MiB in use outside this worker's allocator: contexts, code, other workers, other users."""
        used_mib = self._card.used_mib()
        return None if used_mib is None else used_mib - torch.cuda.memory_reserved() / MIB

    def _foreign(self, processes: tuple[nvml.ComputeProcess, ...] | None) -> tuple[str, ...] | None:
        if not processes:
            if processes is not None:
                self._card.unavailable["foreign_processes"] = HIDDEN
            return None
        busy_pct = self._card.sm_utilization_pct(self._before.utilization_us)
        ours = host.session_pids()
        return foreign(processes, busy_pct, ours=ours, computing=len(host.computing(ours)), own=os.getpid())


def _settled_pct(card: nvml.Card, sleep: Callable[[float], None]) -> float | None:
    """The card's utilization, once what is over no longer counts."""
    busy_pct = card.utilization_pct()
    for _ in range(round(FORGET_S / LOOK_S)):
        if busy_pct is None or busy_pct <= nvml.IDLE_UTILIZATION_PCT:
            break
        sleep(LOOK_S)
        busy_pct = card.utilization_pct()
    return busy_pct


def foreign(
    processes: Collection[nvml.ComputeProcess],
    busy_pct: Mapping[int, int],
    *,
    ours: Collection[int],
    computing: int,
    own: int,
) -> tuple[str, ...]:
    """The processes on the GPU that do not belong to this session, in one phrase each.

    `busy_pct` is process id -> SM utilization, `ours` are the session's process ids, of which `computing`
    hold a context, and `own` is this worker's id. Where NVML does not list `own`, it uses the ids of another
    process namespace (a container), and only the numbers of processes can be compared.
    """
    pids = {process.pid for process in processes}
    if own not in pids:
        known = max(computing, 1)
        return _by_number(len(processes) - known, len(busy_pct) - known)
    used_mib = {process.pid: process.used_mib for process in processes}
    strangers = sorted((pids | busy_pct.keys()) - set(ours))
    return tuple(_phrase(pid, used_mib.get(pid), busy_pct.get(pid)) for pid in strangers)


def _by_number(strangers: int, busy: int) -> tuple[str, ...]:
    said = ((strangers, "of unknown id hold a context"), (busy, "of unknown id computed at the same time"))
    return tuple(f"{number} {what}" for number, what in said if number > 0)


def _phrase(pid: int, used_mib: float | None, busy_pct: int | None) -> str:
    details = (
        f"{used_mib:.0f} MiB" if used_mib is not None else "",
        f"{busy_pct} % of the SMs' time" if busy_pct is not None else "",
    )
    said = ", ".join(detail for detail in details if detail)
    name = f"process {pid}" if pid else "a hidden process"
    return f"{name} ({said})" if said else name


def _since(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in now.items() if name in before}


def _difference(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else now - before
