"""Which GPU this machine would measure on, and which platform it is. Asks NVML; never loads torch."""

from __future__ import annotations

import os
from typing import Any

import pynvml

from perf_tests.harness.errors import UsageError
from perf_tests.harness.protocol import Gpu
from perf_tests.tables.platforms import PLATFORMS, GpuMatch, Platform

GIB = 1 << 30


def first_gpu() -> Gpu | None:
    """The GPU that CUDA would call device 0; None on a machine without one, or with all of them hidden.

    Raises UsageError for a MIG slice: its speed is not the card's.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = _first_visible()
        return None if handle is None else _describe(handle)
    finally:
        pynvml.nvmlShutdown()


def _first_visible() -> Any:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if pynvml.nvmlDeviceGetCount() == 0 or visible == "":
        return None
    first = "0" if visible is None else visible.split(",")[0].strip()
    if first.startswith("MIG"):
        raise UsageError(f"CUDA_VISIBLE_DEVICES names the MIG slice {first}: give the suite a whole GPU")
    if first.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(first))
    return pynvml.nvmlDeviceGetHandleByUUID(first)


def _describe(handle: Any) -> Gpu:
    capability = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        capability=(capability[0], capability[1]),
        memory_gib=pynvml.nvmlDeviceGetMemoryInfo(handle).total / GIB,
        power_limit_w=pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
        driver=pynvml.nvmlSystemGetDriverVersion(),
    )


def recognise(gpu: Gpu) -> Platform:
    """The platform `gpu` is. Raises UsageError, saying what differs, where no row describes it."""
    candidates = [platform for platform in PLATFORMS if platform.gpu and platform.gpu.name == gpu.name]
    if not candidates:
        known = ", ".join(repr(platform.gpu.name) for platform in PLATFORMS if platform.gpu)
        raise UsageError(
            f"unknown GPU {gpu.name!r}: no baselines can belong to it; known are {known}; "
            "add a row to perf_tests/tables/platforms.py"
        )
    found = [platform for platform in candidates if platform.gpu and not _differences(gpu, platform.gpu)]
    if found:
        return found[0]
    closest = candidates[0]
    assert closest.gpu is not None, "candidates were chosen by their GPU's name"
    raise UsageError(
        f"this {gpu.name!r} is not the platform {closest.id!r}: {'; '.join(_differences(gpu, closest.gpu))}; "
        "add a row to perf_tests/tables/platforms.py"
    )


def _differences(gpu: Gpu, match: GpuMatch) -> list[str]:
    found = []
    if gpu.capability != match.capability:
        found.append(f"compute capability {gpu.capability}, the table says {match.capability}")
    for name, unit, value, (low, high) in (
        ("memory", "GiB", gpu.memory_gib, match.memory_gib),
        ("power limit", "W", gpu.power_limit_w, match.power_limit_w),
    ):
        if not low <= value <= high:
            found.append(f"{name} {value:.1f} {unit}, the table says {low:g} to {high:g}")
    return found
