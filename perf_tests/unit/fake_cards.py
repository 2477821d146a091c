"""Makes NVML report several H100s, so that a session on several cards can be tried without any GPU.

As a plugin of pytest, next to the fake worker, which believes that it computes on the card it is shown:

    PERF_FAKE_CARDS=4 python -m pytest -p perf_tests.unit.fake_cards \\
        --perf-worker-module=perf_tests.unit.fake_worker -m h100 --perf-gpus all --perf-out DIR

PYTEST_DONT_REWRITE: a session within a test finds it imported already, and warns of it, which is an error.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from perf_tests.harness.lanes import gpu_lock

CARDS = "PERF_FAKE_CARDS"
GIB = 1 << 30
H100_CARD: Mapping[str, Any] = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-12345678-fake",
    "capability": (9, 0),
    "memory_gib": 80,
    "power_limit_w": 700,
    "mig": 0,
    "near": 0xFFFF_FFFF,
    "lost": False,
}
"""A card as NVML describes it; `near` is the mask of the processors near it."""


def h100s(count: int) -> list[dict[str, Any]]:
    """Cards with UUIDs of their own: GPU-00000000-fake, GPU-00000001-fake and so on."""
    return [{**H100_CARD, "uuid": f"GPU-{index:08x}-fake"} for index in range(count)]


def plug(patch: pytest.MonkeyPatch, cards: Sequence[Mapping[str, Any]]) -> None:
    """Make NVML report `cards`; a handle is the index of one."""
    found = [SimpleNamespace(**card) for card in cards]
    uuids = [card.uuid for card in found]

    def capability(handle: int) -> tuple[int, int]:
        if found[handle].lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        major, minor = found[handle].capability
        return (major, minor)

    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(found),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetHandleByUUID": uuids.index,
        "nvmlDeviceGetName": lambda handle: found[handle].name,
        "nvmlDeviceGetUUID": lambda handle: found[handle].uuid,
        "nvmlDeviceGetCudaComputeCapability": capability,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=found[handle].memory_gib * GIB),
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: found[handle].power_limit_w * 1000,
        "nvmlDeviceGetMigMode": lambda handle: [found[handle].mig, found[handle].mig],
        "nvmlDeviceGetCpuAffinity": lambda handle, words: [found[handle].near] * words,
        "nvmlSystemGetDriverVersion": lambda: "580.10",
    }.items():
        patch.setattr(pynvml, name, answer)


@pytest.hookimpl(tryfirst=True)  # before the suite looks at the machine
def pytest_configure(config: pytest.Config) -> None:
    """Plug as many cards as PERF_FAKE_CARDS says, in a session that names this module with `-p`."""
    patch, locks = pytest.MonkeyPatch(), tempfile.TemporaryDirectory()
    config.add_cleanup(locks.cleanup)
    patch.setattr(gpu_lock, "FOLDER", Path(locks.name))  # other sessions have fake cards of the same UUIDs
    plug(patch, h100s(int(os.environ.get(CARDS, "4"))))
    config.add_cleanup(patch.undo)
