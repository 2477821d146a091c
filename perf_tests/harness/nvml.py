"""A GPU as NVML describes it: the one reading that both sides take, so that they can be compared."""

from __future__ import annotations

from typing import Any

import pynvml

from perf_tests.harness.protocol import Gpu

GIB = 1 << 30


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
