"""Which GPU this machine would measure on, and which platform that is, according to NVML (never torch)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

from perf_tests.harness.lanes import cards
from perf_tests.harness.lanes.cards import LaneCard
from perf_tests.protocol import nvml
from perf_tests.protocol.errors import UsageError
from perf_tests.protocol.reports import Gpu
from perf_tests.tables.cases import Row
from perf_tests.tables.known_issues import KnownIssue
from perf_tests.tables.platforms import PLATFORMS, Device, GpuMatch, Platform

T = TypeVar("T")

WORD = 64
"""Processors in each word of NVML's mask."""
NO_GPU = (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded)
"""Errors of a machine without a GPU. Any other error is a GPU that does not work, not the lack of one."""


def first_gpu() -> Gpu | None:
    """The GPU that CUDA would call device 0; None where there is none or all of them are hidden.

    Raises UsageError for a MIG slice, whose speed is not the card's, for a CUDA_VISIBLE_DEVICES that names no
    existing GPU, and for a driver that does not answer.
    """
    return _ask_nvml(
        lambda: next(map(_describe, _visible(os.environ.get("CUDA_VISIBLE_DEVICES", "0"))), None)
    )


def visible_gpus() -> tuple[Gpu, ...]:
    """All GPUs that CUDA would show, in its order. Raises what `first_gpu` raises."""
    return _ask_nvml(lambda: tuple(map(_describe, _visible(os.environ.get("CUDA_VISIBLE_DEVICES"))))) or ()


def near_cores(uuid: str) -> frozenset[int]:
    """The logical processors near a GPU, as NVML sees them; empty where it does not tell."""

    def read() -> frozenset[int]:
        words = -(-(os.cpu_count() or 1) // WORD)
        masks = pynvml.nvmlDeviceGetCpuAffinity(pynvml.nvmlDeviceGetHandleByUUID(uuid), words)
        bits = (
            (word * WORD + bit, mask >> bit & 1) for word, mask in enumerate(masks) for bit in range(WORD)
        )
        return frozenset(core for core, is_near in bits if is_near)

    try:
        return _ask_nvml(read) or frozenset()
    except UsageError:
        return frozenset()


def answers(uuid: str) -> bool:
    """Whether the driver still reaches a GPU, which may fall off its bus."""
    try:
        return _ask_nvml(lambda: _describe(pynvml.nvmlDeviceGetHandleByUUID(uuid))) is not None
    except UsageError:
        return False


def _ask_nvml(question: Callable[[], T]) -> T | None:
    """The answer to `question`, asked while NVML is initialised; None on a machine without a driver.

    Raises UsageError for a driver that does not answer.
    """
    try:
        pynvml.nvmlInit()
    except NO_GPU:
        return None
    except pynvml.NVMLError as error:
        raise UsageError(_not_answering(error)) from error
    try:
        return question()
    except pynvml.NVMLError as error:
        raise UsageError(_not_answering(error)) from error
    finally:
        pynvml.nvmlShutdown()


def _not_answering(error: Exception) -> str:
    return f"NVML was asked for the GPU and answered {str(error)!r}: repair the driver until nvidia-smi works"


def _visible(names: str | None) -> Iterator[Any]:
    """NVML's handles of the GPUs that `names`, a value of CUDA_VISIBLE_DEVICES, shows; None shows all."""
    count = pynvml.nvmlDeviceGetCount()
    wanted = map(str, range(count)) if names is None else (name.strip() for name in names.split(","))
    for name in wanted:
        if count == 0 or name in ("", "-1"):  # CUDA ignores what follows
            return
        yield _handle(name, count)


def _handle(wanted: str, count: int) -> Any:
    if wanted.startswith("MIG"):
        raise UsageError(f"CUDA_VISIBLE_DEVICES names the MIG slice {wanted}: give the suite a whole GPU")
    for index in range(count):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        # CUDA accepts the first characters of a UUID instead of all of it.
        if wanted == str(index) or pynvml.nvmlDeviceGetUUID(handle).startswith(wanted):
            return handle
    raise UsageError(
        f"CUDA_VISIBLE_DEVICES names the GPU {wanted!r}, which is not among the {count} that NVML sees: "
        "correct the variable"
    )


def _describe(handle: Any) -> Gpu:
    _check_mig(handle)
    return nvml.describe(handle)


def _check_mig(handle: Any) -> None:
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError_NotSupported:
        return
    if current == pynvml.NVML_DEVICE_MIG_ENABLE:
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        # NVML describes the whole card, but CUDA would compute on its first slice.
        raise UsageError(f"the GPU {uuid} is divided into MIG slices: give the suite a whole GPU")


def recognise(gpu: Gpu) -> Platform:
    """The platform that `gpu` is. Raises UsageError, saying what differs, where no platform describes it."""
    candidates = [platform for platform in PLATFORMS if platform.gpu and platform.gpu.name == gpu.name]
    if not candidates:
        known = ", ".join(repr(platform.gpu.name) for platform in PLATFORMS if platform.gpu)
        raise UsageError(
            f"unknown GPU {gpu.name!r}, for which there can be no baselines; known are {known}; "
            "add a row to perf_tests/tables/platforms.py"
        )
    found = [platform for platform in candidates if platform.gpu and not _differences(gpu, platform.gpu)]
    if found:
        return found[0]
    closest = candidates[0]
    assert closest.gpu is not None, "candidates were chosen by their GPU's name"
    raise UsageError(
        f"this {gpu.name!r} is not the platform {closest.id!r}: {'; '.join(_differences(gpu, closest.gpu))}; "
        "set the card as the table says, or add a row to perf_tests/tables/platforms.py"
    )


def mismatch(platform: Platform, gpu: Gpu | None, card: LaneCard | None = None) -> str | None:
    """Why a worker on `gpu` does not measure `platform`, on `card` where that is given; None where it does,
    and always for the CPU."""
    if platform.gpu is None:
        return None
    if gpu is None:
        return f"the worker's torch sees no GPU, but {platform.id} is one: is it a CPU build?"
    if gpu.name != platform.gpu.name:
        return f"the worker computes on {gpu.name!r}, but {platform.id} is {platform.gpu.name!r}"
    if card is not None and gpu.uuid != card.unit:
        return f"the worker computes on {gpu.uuid}, but was told to on {card.unit}"
    return "; ".join(_differences(gpu, platform.gpu)) or None


def _differences(gpu: Gpu, match: GpuMatch) -> list[str]:
    found = []
    if gpu.capability != match.capability:
        found.append(f"compute capability {gpu.capability}, but the table says {match.capability}")
    for name, units, value, (low, high) in (
        ("memory", "GiB", gpu.memory_gib, match.memory_gib),
        ("power limit", "W", gpu.power_limit_w, match.power_limit_w),
    ):
        if not low <= value <= high:
            found.append(f"{name} {value:.1f} {units}, but the table says {low:g} to {high:g}")
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What this machine can measure."""

    found: str
    """A phrase for messages: the GPU, or that there is none."""
    gpu_platform: Platform | None = None
    unit: str | None = None
    """UUID of the GPU; None without one that can be used."""
    problem: str | None = None
    """Why the GPU cannot be used; None where it can, and where there is none."""
    cards: tuple[LaneCard, ...] = ()
    """The cards that are measured on at the same time; empty where only the first is."""

    @classmethod
    def of_several(cls, wanted: str) -> Target:
        """The cards that `wanted`, the value of `--perf-gpus`, asks for.

        Raises UsageError for cards that are not there, that no platform describes, or of different platforms.
        """
        visible = {gpu.uuid: gpu for gpu in visible_gpus()}
        units = cards.chosen(wanted, tuple(visible))
        platforms = {unit: recognise(visible[unit]) for unit in units}
        first = platforms[units[0]]
        if others := [unit for unit, platform in platforms.items() if platform is not first]:
            raise UsageError(
                f"--perf-gpus {wanted}: {units[0]} is {first.id}, but {', '.join(others)} is not; "
                "name cards of one model"
            )
        cores = cards.share_cores(
            {unit: near_cores(unit) for unit in units}, frozenset(os.sched_getaffinity(0))
        )
        return cls(
            found=f"{len(units)} x {visible[units[0]].name} ({', '.join(units)})",
            gpu_platform=first,
            unit=units[0],
            cards=tuple(LaneCard(unit=unit, cores=cores[unit]) for unit in units),
        )

    @classmethod
    def of_this_machine(cls) -> Target:
        """What NVML says about this machine; a GPU that cannot be used is a `problem`, not an error."""
        try:
            gpu = first_gpu()
            if gpu is None:
                return cls(found="no NVIDIA GPU")
            return cls(found=f"{gpu.name} ({gpu.uuid})", gpu_platform=recognise(gpu), unit=gpu.uuid)
        except UsageError as error:
            return cls(found="a GPU of no known platform", problem=str(error))

    def platforms(self, row: Row | KnownIssue) -> tuple[Platform, ...]:
        """The platforms to collect tests of `row` for: this machine's, or all of the row's if it has none of
        them."""
        here = tuple(p for p in row.platforms if p.device is Device.CPU or p is self.gpu_platform)
        return here or row.platforms

    def can_measure(self, platform: Platform) -> bool:
        """Whether this machine is `platform`."""
        return platform.device is Device.CPU or platform is self.gpu_platform
