"""A GPU through NVML: what identifies it, read by both sides, and its counters, read by workers.

Every reading except `describe` degrades: one that the driver, the card or a container refuses is None, and
`Card.unavailable` holds what NVML said.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import pynvml

from perf_tests.protocol.reports import Gpu

GIB = 1 << 30
MIB = 1 << 20

IDLE_UTILIZATION_PCT = 10.0
"""Utilization of a GPU that no process of ours uses; a monitoring agent causes less."""

T = TypeVar("T")

REASONS = {
    "GpuIdle": 0x1,
    "ApplicationsClocksSetting": 0x2,
    "SwPowerCap": 0x4,
    "HwSlowdown": 0x8,
    "SyncBoost": 0x10,
    "SwThermalSlowdown": 0x20,
    "HwThermalSlowdown": 0x40,
    "HwPowerBrakeSlowdown": 0x80,
    "DisplayClock": 0x100,
    "BoardLimit": 0x200,
    "Reliability": 0x400,
}
"""NVML's clock event reasons, by their names in its header."""

ECC_COUNTERS = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}
"""NVML's volatile error counters: since the driver was loaded."""

VALUES = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
}
"""NVML's type of a value -> the member of the union that holds it."""


def describe(handle: Any) -> Gpu:
    """What identifies the card behind an NVML handle. Raises pynvml.NVMLError where the driver refuses."""
    capability = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        capability=(capability[0], capability[1]),
        memory_gib=pynvml.nvmlDeviceGetMemoryInfo(handle).total / GIB,
        power_limit_w=pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
        driver=pynvml.nvmlSystemGetDriverVersion(),
    )


# Where the nanoseconds of throttling come from


def _field_ns(handle: Any, number: int) -> int:
    value = pynvml.nvmlDeviceGetFieldValues(handle, [number])[0]
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return int(getattr(value.value, VALUES[value.valueType]))


def _violation_ns(handle: Any, policy: int) -> int:
    return int(pynvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime)


@dataclass(frozen=True, kw_only=True, slots=True)
class ThrottleCounters:
    """One of NVML's families of counters: nanoseconds by cause, which include pulses between two readings.

    The driver updates them every 100 ms.
    """

    name: str
    causes: dict[str, int]
    """Cause -> NVML's number of its counter."""
    decisive: frozenset[str]
    """The causes that a card must count for the family to be used."""
    read_ns: Callable[[Any, int], int]
    """Device handle and NVML's number of a counter -> nanoseconds."""


THROTTLE_COUNTERS = (
    ThrottleCounters(
        name="clock event reason counters",
        causes={
            "power": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP,
            "sync_boost": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST,
            "sw_thermal": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
            "hw_thermal": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
            "hw_power_brake": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
        },
        # All three: drivers have numbered them differently, and what another numbering has in their place
        # (power smoothing) is not supported on the same cards.
        decisive=frozenset({"sw_thermal", "hw_thermal", "hw_power_brake"}),
        read_ns=_field_ns,
    ),
    ThrottleCounters(
        name="violation status",
        causes={
            "power": pynvml.NVML_PERF_POLICY_POWER,
            "thermal": pynvml.NVML_PERF_POLICY_THERMAL,
            "board": pynvml.NVML_PERF_POLICY_BOARD_LIMIT,
            "reliability": pynvml.NVML_PERF_POLICY_RELIABILITY,
        },
        decisive=frozenset({"thermal"}),
        read_ns=_violation_ns,
    ),
)
"""In the order in which they are tried: the second is deprecated and does not count the power brake."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeProcess:
    """A process with a context on the GPU."""

    pid: int
    """In the driver's process namespace, which need not be ours; 0 where it is hidden."""
    used_mib: float | None
    """None where it is hidden."""


@dataclass(slots=True, eq=False)
class Card:
    """The readings of one GPU. Each takes well under a millisecond and belongs between two generations.

    Times are microseconds of NVML's own clock and may only be compared with each other.
    """

    handle: Any
    unavailable: dict[str, str] = field(default_factory=dict)
    """Reading -> what NVML said when it last refused it."""
    counters: ThrottleCounters | None = field(init=False)
    """The family of throttle counters that this card has; None without any."""

    def __post_init__(self) -> None:
        usable = (each for each in THROTTLE_COUNTERS if each.decisive <= self._throttled_ns(each).keys())
        self.counters = next(usable, None)
        if self.counters is not None:
            self.unavailable.clear()  # readings of the family that was tried before

    def used_mib(self) -> float | None:
        """MiB in use on the whole card, including what the driver reserves for itself."""
        return self._read(
            "device_used_mib", lambda: float(pynvml.nvmlDeviceGetMemoryInfo(self.handle).used / MIB)
        )

    def allocated_mib(self) -> float | None:
        """MiB that processes have allocated on the whole card, without what the driver reserves."""
        version = pynvml.nvmlMemory_v2
        return self._read(
            "allocated_mib", lambda: float(pynvml.nvmlDeviceGetMemoryInfo(self.handle, version).used / MIB)
        )

    def clock_mhz(self, name: str, clock: int) -> float | None:
        """The current frequency of one of NVML's clocks; `name` is that of the reading."""
        return self._read(name, lambda: float(pynvml.nvmlDeviceGetClockInfo(self.handle, clock)))

    def power_w(self) -> float | None:
        """Power draw, which recent cards average over a second."""
        return self._read("power_w", lambda: float(pynvml.nvmlDeviceGetPowerUsage(self.handle) / 1e3))

    def temperature_c(self) -> float | None:
        """Temperature of the GPU's die in degrees Celsius."""
        sensor = pynvml.NVML_TEMPERATURE_GPU
        return self._read(
            "temperature_c", lambda: float(pynvml.nvmlDeviceGetTemperature(self.handle, sensor))
        )

    def throttle_reasons(self) -> tuple[str, ...] | None:
        """Why the clock currently is what it is, by the names in `REASONS`."""
        bits = self._read(
            "throttle_reasons", lambda: int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(self.handle))
        )
        return None if bits is None else tuple(name for name, bit in REASONS.items() if bits & bit)

    def throttled_ns(self) -> dict[str, int]:
        """Nanoseconds throttled so far, by the causes of `counters`, without those that the card does not
        count."""
        return {} if self.counters is None else self._throttled_ns(self.counters)

    def ecc_errors(self) -> dict[str, int]:
        """Errors of all memories since the driver was loaded, by the names in `ECC_COUNTERS`."""
        found = {
            name: self._read(f"ecc_errors.{name}", partial(_ecc_errors, self.handle, kind))
            for name, kind in ECC_COUNTERS.items()
        }
        return {name: count for name, count in found.items() if count is not None}

    def utilization_pct(self) -> float | None:
        """Share of the last sample period (a sixth of a second to a second) in which a kernel ran."""
        return self._read(
            "idle_utilization_pct", lambda: float(pynvml.nvmlDeviceGetUtilizationRates(self.handle).gpu)
        )

    def compute_processes(self) -> tuple[ComputeProcess, ...] | None:
        """Processes with a context on the card."""
        found = self._read(
            "compute_processes", lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(self.handle)
        )
        if found is None:
            return None
        return tuple(
            ComputeProcess(
                pid=each.pid, used_mib=None if each.usedGpuMemory is None else each.usedGpuMemory / MIB
            )
            for each in found
        )

    def sm_utilization_pct(self, after_us: int) -> dict[int, int]:
        """Process id -> its highest SM utilization sampled after `after_us`; empty where none computed."""
        return _highest(self._utilizations(after_us))

    def last_utilization_us(self) -> int:
        """Time of the newest sample of the processes' utilization; 0 without any."""
        return max((int(sample.timeStamp) for sample in self._utilizations(0)), default=0)

    def last_sm_clock_us(self) -> int:
        """Time of the newest SM clock sample; 0 without any."""
        return max((time_us for time_us, _ in self._sm_clocks(0)), default=0)

    def mean_sm_clock_mhz(self, after_us: int) -> float | None:
        """Mean of the SM clock samples taken after `after_us`, which the driver takes at regular intervals.

        Where the window is longer than the driver's buffer, only its end counts.
        """
        clocks_mhz = [mhz for time_us, mhz in self._sm_clocks(after_us) if time_us > after_us]
        return statistics.fmean(clocks_mhz) if clocks_mhz else None

    def _throttled_ns(self, counters: ThrottleCounters) -> dict[str, int]:
        found = {
            cause: self._read(f"throttled_ms.{cause}", partial(counters.read_ns, self.handle, number))
            for cause, number in counters.causes.items()
        }
        return {cause: ns for cause, ns in found.items() if ns is not None}

    def _utilizations(self, after_us: int) -> list[Any]:
        return self._read("process_utilization", partial(_utilizations, self.handle, after_us)) or []

    def _sm_clocks(self, after_us: int) -> list[tuple[int, float]]:
        kind = pynvml.NVML_PROCESSOR_CLK_SAMPLES
        found = self._read(
            "mean_sm_clock_mhz", lambda: pynvml.nvmlDeviceGetSamples(self.handle, kind, after_us)
        )
        if found is None:
            return []
        value_type, samples = found
        member = VALUES[value_type]
        return [(int(each.timeStamp), float(getattr(each.sampleValue, member))) for each in samples]

    def _read(self, name: str, read: Callable[[], T]) -> T | None:
        """What `read` returns; None, with the reason noted under `name`, where NVML refuses."""
        try:
            return read()
        except pynvml.NVMLError as error:
            self.unavailable[name] = str(error)
            return None


def _ecc_errors(handle: Any, kind: int) -> int:
    return int(pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, pynvml.NVML_VOLATILE_ECC))


def _utilizations(handle: Any, after_us: int) -> list[Any]:
    try:
        return list(pynvml.nvmlDeviceGetProcessUtilization(handle, after_us))
    except pynvml.NVMLError as error:
        # NVML reports the absence of samples as an error, which its binding may call success.
        if error.value in (pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND):
            return []
        raise


def _highest(samples: list[Any]) -> dict[int, int]:
    found: dict[int, int] = {}
    for sample in samples:
        found[int(sample.pid)] = max(int(sample.smUtil), found.get(int(sample.pid), 0))
    return {pid: pct for pid, pct in found.items() if pct > 0}
