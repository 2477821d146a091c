"""What one denoise step consists of: its kernels with the shapes of their tensors, and its trace."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity

from perf_tests.protocol.profiles import MAX_KERNELS, KernelTime, Profile, Profiled
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STEP
from perf_tests.tables.platforms import Device
from perf_tests.worker.inspection.evidence.kept_file import is_too_large, keep
from perf_tests.worker.inspection.kernels import (
    EXTERNAL_ID,
    KERNEL,
    OPERATOR,
    Event,
    KinetoRecorder,
    NotCounted,
    Recorder,
    record,
)
from perf_tests.worker.inspection.step_time import COPIES, ON_DEVICE, class_of
from perf_tests.worker.measure.clock import Clock

ACTIVITIES = {
    Device.CPU: (ProfilerActivity.CPU,),
    Device.CUDA: (ProfilerActivity.CPU, ProfilerActivity.CUDA),
}
DIMENSIONS = "Input Dims"
MAX_SHAPE = 120


def profile(
    pipeline: Any,
    case: Case,
    clock: Clock,
    device: Device,
    request: Profile,
    recorder: Recorder | None = None,
) -> Profiled:
    """Record the second step of a generation; what cannot be recorded or kept is told of, not raised.

    `pipeline` has been warmed up for `case`. The default `recorder` is torch's profiler.
    """
    recorder = recorder or KinetoRecorder(*ACTIVITIES[device], shapes=True)
    try:
        events = record(pipeline, case, clock, recorder, (STEP,))[STEP]
    except NotCounted as exc:
        return Profiled(problem=str(exc))
    found = of_gpu(events) if device is Device.CUDA else of_cpu(events)
    kernels = sorted(found, key=lambda kernel: (-kernel.us, kernel.name, kernel.shape))[:MAX_KERNELS]
    if not kernels:
        return Profiled(problem="the profiler recorded nothing: it may have no access to the GPU's counters")
    problem = write(events, Path(request.trace), request.limit_mb)
    return Profiled(kernels=tuple(kernels), trace=None if problem else request.trace, problem=problem)


def of_gpu(events: Sequence[Event]) -> list[KernelTime]:
    """What occupied a GPU, by name and shape."""
    shapes = {
        link: shape
        for event in events
        if event.get("cat") == OPERATOR and (shape := _shape(event))
        if (link := _arguments(event).get(EXTERNAL_ID)) is not None
    }
    return _summed(
        (
            str(event.get("name")),
            class_of(str(event.get("name"))) if event.get("cat") == KERNEL else COPIES,
            shapes.get(_arguments(event).get(EXTERNAL_ID), ""),
            float(event["dur"]),
        )
        for event in events
        if event.get("cat") in ON_DEVICE
    )


def of_cpu(events: Sequence[Event]) -> list[KernelTime]:
    """The operators of a CPU by name and shape, each without the time of those that it calls.

    What inductor generates is called by a region of a graph, whose own time is theirs.
    """
    operators = [event for event in events if event.get("cat") == OPERATOR and "dur" in event]
    own_us = _own_us(operators)
    return _summed(
        (str(event.get("name")), "", _shape(event), us) for event, us in zip(operators, own_us, strict=True)
    )


def _own_us(operators: Sequence[Event]) -> list[float]:
    """The time of each, without that of what it calls on its thread."""
    own_us = [float(event["dur"]) for event in operators]
    order = sorted(
        range(len(operators)),
        key=lambda n: (str(operators[n].get("tid")), float(operators[n]["ts"]), -float(operators[n]["dur"])),
    )
    open_: list[int] = []
    for number in order:
        event = operators[number]
        while open_ and not _contains(operators[open_[-1]], event):
            open_.pop()
        if open_:
            own_us[open_[-1]] -= float(event["dur"])
        open_.append(number)
    return [max(us, 0.0) for us in own_us]


def _contains(outer: Event, inner: Event) -> bool:
    end_us = float(outer["ts"]) + float(outer["dur"])
    return outer.get("tid") == inner.get("tid") and float(inner["ts"]) < end_us


def _summed(parts: Iterable[tuple[str, str, str, float]]) -> list[KernelTime]:
    found: dict[tuple[str, str, str], tuple[int, float]] = {}
    for name, kind, shape, us in parts:
        launches, spent_us = found.get((name, kind, shape), (0, 0.0))
        found[name, kind, shape] = (launches + 1, spent_us + us)
    return [
        KernelTime(name=name, kind=kind, shape=shape, launches=launches, us=us)
        for (name, kind, shape), (launches, us) in found.items()
    ]


def _shape(event: Event) -> str:
    """As `4096x3072, 3072x3072`; without what has no dimensions."""
    given = _arguments(event).get(DIMENSIONS) or ()
    tensors = (each for each in given if isinstance(each, list) and each)
    text = ", ".join("x".join(map(str, each)) for each in tensors)
    return text if len(text) <= MAX_SHAPE else f"{text[: MAX_SHAPE - 3]}..."


def _arguments(event: Event) -> Mapping[str, Any]:
    found: Mapping[str, Any] = event.get("args") or {}
    return found


def write(events: Sequence[Event], file: Path, limit_mb: float) -> str:
    """Write the trace to `file`, without what the host did where it would be too large; why it was not kept,
    empty where it was."""
    packed, of_device = _packed(events), list(_of_the_device(events))
    if is_too_large(packed, limit_mb) and any(event.get("cat") in ON_DEVICE for event in of_device):
        packed = _packed(of_device)
    return keep("trace", packed, file, limit_mb)


def _packed(events: Sequence[Event]) -> bytes:
    return gzip.compress(json.dumps({"traceEvents": events}).encode(), mtime=0)


def _of_the_device(events: Iterable[Event]) -> Iterator[Event]:
    """What occupied the GPU, and the names of its rows."""
    return (event for event in events if event.get("cat") in ON_DEVICE or event.get("ph") == "M")
