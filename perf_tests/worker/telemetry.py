"""The state of the GPU between two generations, through NVML: never read while one runs."""

from __future__ import annotations

from typing import Any

import pynvml
import torch

from perf_tests.harness import nvml
from perf_tests.harness.protocol import Gpu, Telemetry

MIB = 1 << 20

# NVML's clock event reasons, by the names of its header.
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
# NVML's violation counters count nanoseconds, so they see pulses between two looks.
VIOLATIONS = {
    "power": pynvml.NVML_PERF_POLICY_POWER,
    "thermal": pynvml.NVML_PERF_POLICY_THERMAL,
    "board": pynvml.NVML_PERF_POLICY_BOARD_LIMIT,
    "reliability": pynvml.NVML_PERF_POLICY_RELIABILITY,
}


class GpuMonitor:
    """One GPU, the one torch uses."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self._throttled_ns = self._violations()

    def describe(self) -> Gpu:
        """What identifies the card."""
        return nvml.describe(self._handle)

    def used_mib(self) -> float:
        """Memory in use on the whole card."""
        return float(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used / MIB)

    def read(self) -> Telemetry:
        """Everything at once; throttled times are those since the last reading."""
        handle = self._handle
        reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
        before, self._throttled_ns = self._throttled_ns, self._violations()
        return Telemetry(
            sm_clock_mhz=pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            memory_clock_mhz=pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            power_w=pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            temperature_c=pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            throttle_reasons=tuple(name for name, bit in REASONS.items() if reasons & bit),
            throttled_ms={name: (after - before[name]) / 1e6 for name, after in self._throttled_ns.items()},
            compute_processes=len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
            device_used_mib=self.used_mib(),
        )

    def _violations(self) -> dict[str, int]:
        return {
            name: ns for name, policy in VIOLATIONS.items() if (ns := self._violation_ns(policy)) is not None
        }

    def _violation_ns(self, policy: int) -> int | None:
        try:
            status: Any = pynvml.nvmlDeviceGetViolationStatus(self._handle, policy)
        except pynvml.NVMLError_NotSupported:
            return None
        return int(status.violationTime)
