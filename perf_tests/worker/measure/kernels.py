"""The GPU kernels of a steady denoise step, counted in a generation of their own: recording slows it down."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch.profiler import ProfilerActivity, profile, supported_activities

from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STEP
from perf_tests.worker.measure import counters, early_stop
from perf_tests.worker.measure.clock import Clock
from perf_tests.worker.measure.generate import Stages, call_arguments

METRIC = "kernels_per_step"

KERNEL = "kernel"
"""Category in torch's traces of a kernel, launched or replayed from a CUDA graph. Copies and fills have
categories of their own, `gpu_memcpy` and `gpu_memset`."""

Event = Mapping[str, Any]
"""An event of a trace in Chrome's format: `cat` is its category, which metadata does not have."""


class NotCounted(Exception):
    """Why the kernels of a step could not be counted."""


class Recorder(Protocol):
    """Records the activity of a device between `start` and `stop`."""

    def start(self) -> None:
        """Begin to record. Raises NotCounted where that is refused."""

    def stop(self) -> Iterable[Event]:
        """End the recording, and return what happened since `start`."""


class KinetoRecorder:
    """torch's profiler, which records the activity of a GPU with CUPTI."""

    def __init__(self, activity: ProfilerActivity = ProfilerActivity.CUDA) -> None:
        self._activity = activity

    def start(self) -> None:
        """Begin to record. Raises NotCounted where torch was built without it, or the driver refuses."""
        if self._activity not in supported_activities():
            raise NotCounted(f"this build of torch cannot record {self._activity.name} activity")
        self._profile = profile(activities=[self._activity])
        try:
            self._profile.start()
        except RuntimeError as exc:
            raise NotCounted(f"the profiler did not start: {exc}") from exc

    def stop(self) -> Iterable[Event]:
        """What happened since `start`, from an export: only there does every torch name categories."""
        self._profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            self._profile.export_chrome_trace(str(file))
            events: list[Event] = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
        return events


class StepRecording:
    """Records from the return of the scheduler's first step to that of its second."""

    def __init__(self, recorder: Recorder, clock: Clock) -> None:
        self._recorder = recorder
        self._clock = clock
        self.events: list[Event] | None = None
        """None until the second step has returned."""

    def before_mark(self, stage: str) -> None:
        """Start or stop recording; `Stages` calls it with the stage that ends.

        Raises NotCounted where recording is refused.
        """
        # Without waiting, the device would still be computing the previous step.
        if stage == "first_step_ms":
            self._clock.synchronize()
            self._recorder.start()
        elif stage == STEP:
            self._clock.synchronize()
            self.events = list(self._recorder.stop())
            early_stop.stop()


def measure(pipeline: Any, case: Case, clock: Clock, recorder: Recorder | None = None) -> dict[str, float]:
    """Metric name -> value; empty, with a warning in the worker's log, where kernels cannot be counted.

    `pipeline` has been warmed up for `case`; `clock` is that of its device. The default `recorder` is torch's
    profiler of GPU activity.
    """
    try:
        events = record_step(pipeline, case, clock, recorder or KinetoRecorder())
        return {METRIC: float(count(events))}
    except NotCounted as exc:
        warnings.warn(f"{METRIC} of {case.id} was not counted: {exc}", RuntimeWarning, stacklevel=2)
        return {}


def record_step(pipeline: Any, case: Case, clock: Clock, recorder: Recorder) -> Iterable[Event]:
    """The events of the second step of the workload, after which the generation is stopped.

    The pipeline is called exactly as when it is timed, so that nothing needs compiling. Raises NotCounted
    where there is no second step, where something was compiled after all, and where `recorder` refuses.
    """
    recording = StepRecording(recorder, clock)
    stages = Stages(clock, recording.before_mark)
    before = counters.read()
    with stages.attached(pipeline), early_stop.stoppable():
        stages.begin()
        pipeline(**call_arguments(case.build.pipeline, case.workload))
    if recording.events is None:
        raise NotCounted("its workload has no second step")
    if counters.read().since(before).graphs:
        raise NotCounted("something was compiled during it, so the step was not a steady one")
    return recording.events


def count(events: Iterable[Event]) -> int:
    """Number of kernels among `events`. Raises NotCounted for none, because every step launches some."""
    kernels = sum(1 for event in events if event.get("cat") == KERNEL)
    if not kernels:
        raise NotCounted("the profiler recorded no kernel: it may have no access to the GPU's counters")
    return kernels
