"""The work of a generation's stages: the kernels that a GPU runs, or the operators that a CPU does.

They are counted in generations of their own, because recording slows them down.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch.profiler import ProfilerActivity, profile, supported_activities

from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STAGES
from perf_tests.tables.platforms import Device
from perf_tests.worker.inspection import counters
from perf_tests.worker.measure import early_stop
from perf_tests.worker.measure.clock import Clock
from perf_tests.worker.measure.generate import PRIMING_STEPS, Stages, call_arguments

ENCODE, FIRST_STEP, STEP, DECODE = STAGES

KERNEL = "kernel"
"""Category in torch's traces of a kernel, launched or replayed from a CUDA graph. Copies and fills have
categories of their own, `gpu_memcpy` and `gpu_memset`."""

GRAPH_LAUNCH = "cudaGraphLaunch"
"""Name of the host's call that launches a CUDA graph, of whatever it consists."""
OPERATOR = "cpu_op"
"""Category of an operator that runs on the host, whether it was called or is part of one that was."""
EXTERNAL_ID = "External id"
"""Argument that a kernel and the operator that launched it have in common."""
MEMORY = "[memory]"
"""Name of an event that allocates or frees memory."""

Event = Mapping[str, Any]
"""An event of a trace in Chrome's format: `cat` is its category, which metadata does not have."""


class NotCounted(Exception):
    """Why something could not be counted."""


class Recorder(Protocol):
    """Records the activity of a device between `start` and `stop`."""

    def start(self) -> None:
        """Begin to record. Raises NotCounted where that is refused."""

    def stop(self) -> Iterable[Event]:
        """End the recording, and return what happened since `start`."""


class KinetoRecorder:
    """torch's profiler, which records the activity of a GPU with CUPTI; with `memory`, allocations too, and
    with `shapes`, those of the tensors that operators are called with."""

    def __init__(self, *activities: ProfilerActivity, memory: bool = False, shapes: bool = False) -> None:
        self._activities = activities
        self._memory, self._shapes = memory, shapes

    def start(self) -> None:
        """Begin to record. Raises NotCounted where torch was built without it, or the driver refuses."""
        for activity in self._activities:
            if activity not in supported_activities():
                raise NotCounted(f"this build of torch cannot record {activity.name} activity")
        self._profile = profile(
            activities=self._activities, profile_memory=self._memory, record_shapes=self._shapes
        )
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


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkUnit:
    """What the work of a stage is counted in on one type of device."""

    activity: ProfilerActivity
    category: str
    """Of the events that are counted."""
    metrics: Mapping[str, str]
    """Stage -> metric."""


UNITS = {
    Device.CUDA: WorkUnit(
        activity=ProfilerActivity.CUDA,
        category=KERNEL,
        metrics={ENCODE: "kernels_per_encode", STEP: "kernels_per_step", DECODE: "kernels_per_decode"},
    ),
    Device.CPU: WorkUnit(
        activity=ProfilerActivity.CPU,
        category=OPERATOR,
        metrics={ENCODE: "operators_per_encode", STEP: "operators_per_step", DECODE: "operators_per_decode"},
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedWork:
    """What the stages of a generation were found to do."""

    values: dict[str, float]
    """Metric name -> value; without those that could not be counted."""
    step: Mapping[str, int] | None
    """Name -> how often a denoise step ran it; None where the step was not recorded."""


UNCOUNTED = CountedWork(values={}, step=None)
"""Where nobody looked."""

NEXT = {ENCODE: FIRST_STEP, FIRST_STEP: STEP, STEP: DECODE}
"""Stage -> the one that follows it, in a generation of two steps and in the beginning of any other."""


class StageRecording:
    """Records the stages of one generation that are wanted, and ends it after the last of them.

    Of the steady steps it records `steps`, from the second of the generation on, without a wait between.
    """

    def __init__(self, recorder: Recorder, clock: Clock, wanted: tuple[str, ...], steps: int = 1) -> None:
        self._recorder = recorder
        self._clock = clock
        self._wanted = wanted
        self._steps = steps
        self._recording = False
        self.events: dict[str, list[Event]] = {}
        """Stage -> what happened during it."""

    def begin(self) -> None:
        """Call it just before the pipeline is called. Raises NotCounted where recording is refused."""
        self._record(ENCODE)

    def before_mark(self, stage: str) -> None:
        """Stop or start recording; `Stages` calls it with the stage that ends.

        Raises NotCounted where recording is refused.
        """
        if self._recording and stage == STEP and self._steps > 1:
            self._steps -= 1
            return
        if self._recording:
            # Without waiting, the device would still be computing.
            self._clock.synchronize()
            self.events[stage] = list(self._recorder.stop())
            self._recording = False
            if stage == self._wanted[-1] != DECODE:
                early_stop.stop()
        self._record(NEXT.get(stage))

    def _record(self, stage: str | None) -> None:
        if stage in self._wanted and stage not in self.events:
            self._clock.synchronize()
            self._recorder.start()
            self._recording = True


def measure(
    pipeline: Any, case: Case, clock: Clock, unit: WorkUnit, recorder: Recorder | None = None
) -> CountedWork:
    """The work of each stage; what cannot be counted is a warning in the worker's log.

    `pipeline` has been warmed up for `case`; `clock` and `unit` are those of its device. The default
    `recorder` is torch's profiler.
    """
    recorder = recorder or KinetoRecorder(unit.activity)
    # The decoder ends a generation of its own, which is as short as the one that compiled it.
    short = dataclasses.replace(case.workload, steps=PRIMING_STEPS, measured_steps=None)
    values: dict[str, float] = {}
    step: Mapping[str, int] | None = None
    for workload, stages in ((case.workload, (ENCODE, STEP)), (short, (DECODE,))):
        try:
            recorded = record(pipeline, dataclasses.replace(case, workload=workload), clock, recorder, stages)
            values |= {unit.metrics[stage]: float(count(recorded[stage], unit)) for stage in stages}
            if STEP in recorded:
                step = by_name(recorded[STEP], unit)
                values |= _launches(recorded[STEP], unit)
        except NotCounted as exc:
            names = " and ".join(unit.metrics[stage] for stage in stages)
            warnings.warn(f"{names} of {case.id} were not counted: {exc}", RuntimeWarning, stacklevel=2)
    return CountedWork(values=values, step=step)


def record(
    pipeline: Any, case: Case, clock: Clock, recorder: Recorder, stages: tuple[str, ...], steps: int = 1
) -> dict[str, list[Event]]:
    """Stage -> the events of each of `stages`; of the steps, of so many of them from the second on.

    The generation is stopped after the last of them. The pipeline is called exactly as when it is timed, so
    that nothing needs compiling. Raises NotCounted where there is no such stage, where something was compiled
    after all, and where `recorder` refuses.
    """
    recording = StageRecording(recorder, clock, stages, steps)
    marks = Stages(clock, recording.before_mark)
    before = counters.read()
    with marks.attached(pipeline), early_stop.stoppable():
        marks.begin()
        recording.begin()
        pipeline(**call_arguments(case.build.pipeline, case.workload))
        marks.mark(DECODE)
    if STEP in stages and STEP not in recording.events:
        raise NotCounted("its workload has no second step")
    if counters.read().since(before).graphs:
        raise NotCounted("something was compiled during it, so the step was not a steady one")
    return recording.events


def _launches(events: Iterable[Event], unit: WorkUnit) -> dict[str, float]:
    """Metric name -> how many CUDA graphs the host launched; nothing on a CPU."""
    if unit.activity is not ProfilerActivity.CUDA:
        return {}
    return {"graph_launches_per_step": float(sum(each.get("name") == GRAPH_LAUNCH for each in events))}


def count(events: Iterable[Event], unit: WorkUnit) -> int:
    """Number of `unit` among `events`. Raises NotCounted for none, because every stage has some."""
    found = sum(by_name(events, unit).values())
    if not found:
        raise NotCounted(
            f"the profiler recorded no {unit.category}: it may have no access to the GPU's counters"
        )
    return found


def by_name(events: Iterable[Event], unit: WorkUnit) -> Counter[str]:
    """Name of each `unit` among `events` -> how often it ran."""
    return Counter(str(event.get("name")) for event in events if event.get("cat") == unit.category)
