"""How long a GPU is busy in a denoise step, which a busy host does not change."""

from __future__ import annotations

import warnings
from typing import Any

from torch.profiler import ProfilerActivity

from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.host_bound import BUSY_STEPS
from perf_tests.tables.metrics.spec import STEP, STEP_BUSY
from perf_tests.worker.inspection.kernels import KinetoRecorder, NotCounted, Recorder, record
from perf_tests.worker.inspection.step_time import busy_ms
from perf_tests.worker.measure.clock import Clock


def measure(pipeline: Any, case: Case, clock: Clock, recorder: Recorder | None = None) -> dict[str, float]:
    """Metric name -> milliseconds per step in which at least one kernel, copy or fill ran.

    Of `BUSY_STEPS` steady steps of one generation, recorded without a wait between them. Empty, with a
    warning in the worker's log, where that is refused. The default `recorder` is torch's profiler.
    """
    steps = min(BUSY_STEPS, case.workload.generated_steps - 1)
    recorder = recorder or KinetoRecorder(ProfilerActivity.CUDA)
    try:
        events = record(pipeline, case, clock, recorder, (STEP,), steps=steps)[STEP]
        return {STEP_BUSY: busy_ms(events) / steps}
    except (NotCounted, ValueError) as exc:
        warnings.warn(f"{STEP_BUSY} of {case.id} was not measured: {exc}", RuntimeWarning, stacklevel=2)
        return {}
