"""Where the time of a denoise step goes: its kernels by what they do, and the gaps between them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perf_tests.worker.inspection.kernels import KERNEL, Event

GEMM, ATTENTION, QUANTIZATION, POINTWISE, COPIES = (
    *("GEMM", "attention", "quantization and scales", "pointwise and norms", "copies and fills"),
)
CLASSES: tuple[tuple[str, tuple[str, ...]], ...] = (
    # inductor names its kernels after all that they fuse, and after what uses their result: one that clamps
    # or looks for a largest value quantizes or scales, whatever else it does.
    (GEMM, ("triton_tem",)),
    (QUANTIZATION, ("amax", "aminmax", "amin", "clamp")),
    (POINTWISE, ("triton",)),
    (ATTENTION, ("sdpa", "flash", "fmha", "attention")),
    (GEMM, ("gemm", "cutlass", "nvjet", "xmma", "imma", "cublas", "splitk")),
)
"""What a kernel does -> what its name, in lower case, then contains; the first that fits."""
ON_DEVICE = frozenset({KERNEL, "gpu_memcpy", "gpu_memset"})
"""Categories of what occupies a GPU."""
US_PER_MS = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """What a GPU does during one step."""

    parts_ms: Mapping[str, float]
    """What kernels do -> milliseconds; kernels that overlap count each."""
    gaps_ms: float
    """Between the first kernel's start and the last one's end, while nothing ran."""
    kernels: tuple[tuple[str, float, int], ...]
    """Name, milliseconds and launches of each kernel, those that take longest first."""

    @property
    def total_ms(self) -> float:
        """All parts and the gaps."""
        return math.fsum((*self.parts_ms.values(), self.gaps_ms))


def class_of(kernel: str) -> str:
    """What the kernel of that name does."""
    low = kernel.lower()
    return next((name for name, words in CLASSES if any(word in low for word in words)), POINTWISE)


def busy_ms(events: Iterable[Event]) -> float:
    """Milliseconds in which at least one kernel, copy or fill ran. Raises ValueError where nothing did."""
    busy = _on_device(events)
    until_us = max(_start_us(event) + float(event["dur"]) for event in busy)
    return (until_us - _start_us(busy[0]) - _gaps_us(busy)) / US_PER_MS


def step_time(events: Iterable[Event]) -> StepTime:
    """The time of one step, from what was recorded during it. Raises ValueError where nothing ran."""
    busy = _on_device(events)
    parts: Counter[str] = Counter()
    by_name: dict[str, tuple[float, int]] = {}
    for event in busy:
        ms, name = float(event["dur"]) / US_PER_MS, str(event["name"])
        parts[class_of(name) if event["cat"] == KERNEL else COPIES] += ms  # type: ignore[assignment]  # float
        spent_ms, launches = by_name.get(name, (0.0, 0))
        by_name[name] = (spent_ms + ms, launches + 1)
    kernels = sorted(((name, ms, launches) for name, (ms, launches) in by_name.items()), key=_slowest)
    return StepTime(parts_ms=dict(parts), gaps_ms=_gaps_us(busy) / US_PER_MS, kernels=tuple(kernels))


def _on_device(events: Iterable[Event]) -> list[Event]:
    """What occupied the GPU, by when it began. Raises ValueError for nothing."""
    busy = sorted((event for event in events if event.get("cat") in ON_DEVICE), key=_start_us)
    if not busy:
        raise ValueError("nothing ran on the GPU during the step")
    return busy


def _gaps_us(busy: Iterable[Event]) -> float:
    gaps_us, until_us = 0.0, None
    for event in busy:
        start_us = _start_us(event)
        if until_us is not None and start_us > until_us:
            gaps_us += start_us - until_us
        until_us = max(until_us or 0.0, start_us + float(event["dur"]))
    return gaps_us


def _start_us(event: Event) -> float:
    return float(event["ts"])


def _slowest(kernel: tuple[str, float, int]) -> tuple[float, str]:
    return -kernel[1], kernel[0]
