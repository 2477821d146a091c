"""What a recipe that saves memory really does: where weights wait, what is copied, what each stage takes.

It is looked at in a generation of its own, after everything that is timed.
"""

from __future__ import annotations

import gc
import itertools
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity

from perf_tests.protocol.offloading import MemorySaving, OffloadedComponent
from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STAGES
from perf_tests.tables.recipes import Offload
from perf_tests.worker.inspection.kernels import KERNEL, Event, KinetoRecorder, NotCounted, Recorder
from perf_tests.worker.measure import calls, memory
from perf_tests.worker.measure.clock import Clock
from perf_tests.worker.measure.generate import Stages, call_arguments
from perf_tests.worker.measure.memory import MIB, plain_tensors
from perf_tests.worker.model import offload
from perf_tests.worker.model.build import components

COPY = "gpu_memcpy"
"""Category of a copy in torch's traces; its name tells from where to where."""
TO_DEVICE, FROM_DEVICE = "HtoD", "DtoH"
DECODES = ("decode", "_decode", "tiled_decode")
ENCODE, FIRST_STEP, STEP, DECODE = STAGES
PEAKS = {
    ENCODE: "encode_peak_allocated_mib",
    FIRST_STEP: "denoise_peak_allocated_mib",
    STEP: "denoise_peak_allocated_mib",
    DECODE: "decode_peak_allocated_mib",
}
"""Stage -> metric of its peak."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetUp:
    """What setting up a recipe that saves memory came to."""

    components: dict[str, OffloadedComponent]
    """Empty where nothing is offloaded."""
    seconds: float
    device: torch.device
    """Where the weights are used."""
    clock: Clock


def set_up(pipeline: Any, case: Case, device: torch.device, clock: Clock) -> SetUp | None:
    """Carry out what the recipe says of saving memory; None where it says nothing."""
    recipe = case.build.recipe
    if not recipe.saves_memory:
        return None
    started_s = time.perf_counter()
    offload.set_up(pipeline, recipe, device)
    clock.synchronize()
    seconds = time.perf_counter() - started_s
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    found = look(pipeline) if recipe.offload else {}
    return SetUp(components=found, seconds=seconds, device=device, clock=clock)


def look(pipeline: Any) -> dict[str, OffloadedComponent]:
    """Where the weights of each component are now, and what moves them."""
    return {name: _component(module) for name, module in components(pipeline).items()}


def _component(root: nn.Module) -> OffloadedComponent:
    hooks = tuple(offload.hooks(root))
    moved = {id(parameter) for hook in hooks for parameter in hook.parameters}
    parameters = tuple(root.parameters())
    bytes_on: Counter[str] = Counter()
    for parameter in parameters:
        # What the wrapper of a tensor subclass says of its device need not be true.
        for plain in plain_tensors(parameter):
            bytes_on[plain.device.type] += plain.nbytes
    return OffloadedComponent(
        hooks=dict(Counter(hook.kind for hook in hooks)),
        unmoved_bytes=copied_bytes(each for each in parameters if id(each) not in moved),
        bytes_on=dict(bytes_on),
    )


def copied_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of `tensors` where each is copied by itself, storages on the meta device included."""
    return sum(plain.nbytes for tensor in tensors for plain in plain_tensors(tensor))


def inspect(pipeline: Any, case: Case, before: SetUp | None) -> tuple[MemorySaving | None, dict[str, float]]:
    """What became of what was set up `before`, once everything was timed, and metric name -> value."""
    if before is None:
        return None, {}
    final, values = {}, {}
    if case.build.recipe.offload:
        final = look(pipeline)
        values = {**_between_generations(final, pipeline, before.device), "offload_set_up_s": before.seconds}
    decodes, of_generation = _generate(pipeline, case, before.device, before.clock)
    saving = MemorySaving(set_up=before.components, final=final, decodes=decodes)
    return saving, values | of_generation


def _between_generations(
    final: Mapping[str, OffloadedComponent], pipeline: Any, device: torch.device
) -> dict[str, float]:
    on_host = (count for part in final.values() for kind, count in part.bytes_on.items() if kind != "cuda")
    values = {"host_weights_mib": sum(on_host) / MIB}
    if device.type == "cuda":
        memory.clear_workspaces()
        torch.cuda.empty_cache()
        resident = torch.cuda.memory_allocated(device)
        largest = max(copied_bytes(module.parameters()) for module in components(pipeline).values())
        pinned = torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)
        values |= {
            "resident_mib": resident / MIB,
            "resident_vs_largest": resident / largest,
            "host_pinned_mib": pinned / MIB,
        }
    return values


# One generation


def _generate(
    pipeline: Any, case: Case, device: torch.device, clock: Clock
) -> tuple[dict[str, int], dict[str, float]]:
    mode = case.build.recipe.offload
    peaks = StagePeaks() if device.type == "cuda" else None
    stages = Stages(clock, peaks.before_mark if peaks else _nothing)
    recorder = KinetoRecorder(ProfilerActivity.CUDA) if peaks and mode else None
    needed: Counter[str] = Counter()
    with ExitStack() as watching:
        decodes = watching.enter_context(calls.methods_counted(pipeline.vae, DECODES))
        if mode:
            needed = watching.enter_context(_needed(pipeline, mode))
        watching.enter_context(stages.attached(pipeline))
        refusal = _start(recorder)
        stages.begin()
        pipeline(**call_arguments(case.build.pipeline, case.workload))
        stages.mark(DECODE)
        clock.synchronize()
    values = dict(peaks.values) if peaks else {}
    if recorder and refusal is None:
        values |= transfers(list(recorder.stop()), needed.total())
    elif refusal is not None:
        warnings.warn(f"copies of {case.id} were not counted: {refusal}", RuntimeWarning, stacklevel=2)
    return dict(decodes), values


def _nothing(_stage: str) -> None:
    pass


def _start(recorder: Recorder | None) -> NotCounted | None:
    """Why `recorder` does not record; None where it does, or there is none."""
    try:
        if recorder is not None:
            recorder.start()
    except NotCounted as why:
        return why
    return None


class StagePeaks:
    """The most that is allocated on the device in each stage of one generation."""

    def __init__(self) -> None:
        torch.cuda.reset_peak_memory_stats()
        self.values: dict[str, float] = {}
        """By metric."""

    def before_mark(self, stage: str) -> None:
        """Note the peak of the stage that ends, which is that of what the host has submitted by then."""
        name = PEAKS[stage]
        self.values[name] = max(self.values.get(name, 0.0), torch.cuda.max_memory_allocated() / MIB)
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def _needed(pipeline: Any, mode: Offload) -> Iterator[Counter[str]]:
    """Component -> bytes of weights that its calls in the block need on the device."""
    needed: Counter[str] = Counter()
    with ExitStack() as watching:
        for name, root in components(pipeline).items():
            if not mode.per_call:
                # A whole component comes once, and a pipeline uses each of those that it has.
                needed[name] = copied_bytes(itertools.chain(root.parameters(), root.buffers()))
                continue
            for hook in offload.hooks(root):
                size = copied_bytes(hook.parameters)
                handle = hook.module.register_forward_pre_hook(_adding(needed, name, size))
                watching.callback(handle.remove)
        yield needed


def _adding(needed: Counter[str], name: str, size: int) -> Any:
    def add(*_: object) -> None:
        needed[name] += size

    return add


def transfers(events: Iterable[Event], needed: int) -> dict[str, float]:
    """Metric name -> value, from what a GPU did in one generation whose weights take `needed` bytes, counting
    each time that they are needed; empty without a kernel, where the recording is none."""
    found = tuple(events)
    kernels = _merged(each for each in found if each.get("cat") == KERNEL)
    if not kernels:
        return {}
    copies = [each for each in found if each.get("cat") == COPY]
    to_device = [each for each in copies if TO_DEVICE in each["name"]]
    values = {
        "h2d_bytes_per_image": _bytes(to_device),
        "d2h_bytes_per_image": _bytes(each for each in copies if FROM_DEVICE in each["name"]),
    }
    if needed:
        values["h2d_vs_needed"] = values["h2d_bytes_per_image"] / needed
    if spans := _merged(to_device):
        total_us = sum(end - start for start, end in spans)
        values["copies_under_kernels_pct"] = 100.0 * _common_us(spans, kernels) / total_us
    return values


def _bytes(copies: Iterable[Event]) -> float:
    return float(sum(each["args"]["bytes"] for each in copies))


Span = tuple[float, float]
"""Start and end, in microseconds."""


def _merged(events: Iterable[Event]) -> list[Span]:
    """When any of `events` was under way."""
    merged: list[Span] = []
    for start, end in sorted((float(each["ts"]), float(each["ts"]) + float(each["dur"])) for each in events):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _common_us(ones: list[Span], others: list[Span]) -> float:
    """How long one of each was under way at the same time; both are sorted, and none overlaps another."""
    total, first = 0.0, 0
    for start, end in ones:
        while first < len(others) and others[first][1] <= start:
            first += 1
        for begin, stop in itertools.islice(others, first, None):
            if begin >= end:
                break
            total += min(end, stop) - max(start, begin)
    return total
