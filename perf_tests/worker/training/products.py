"""What carries out the float8 products of a training step, and how many kernels it runs for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

import torch
from torch.profiler import ProfilerActivity

from perf_tests.protocol.training import Float8Kernels
from perf_tests.tables.metrics.spec import TRAIN_BUSY
from perf_tests.worker.inspection import step_time
from perf_tests.worker.inspection.kernels import EXTERNAL_ID, KERNEL, OPERATOR, Event, KinetoRecorder
from perf_tests.worker.measure.clock import Clock

T = TypeVar("T")

SCALED_MM: Final = "aten::_scaled_mm"
"""The operator that multiplies in float8, called or compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A forward or a backward pass as a trace shows it."""

    products: int
    """Calls of the operator that multiplies in float8."""
    carried_out_by: dict[str, int]
    """Kernels that these launched, by name; without a GPU, the operator itself."""
    kernels: int
    """All that ran on the GPU."""
    busy_ms: float
    """While at least one kernel, copy or fill ran there."""

    @classmethod
    def of(cls, events: Iterable[Event]) -> Pass:
        """From the events of a trace in Chrome's format."""
        found = list(events)
        products = [each for each in found if each.get("cat") == OPERATOR and each.get("name") == SCALED_MM]
        kernels = [each for each in found if each.get("cat") == KERNEL]
        ids = {_external_id(each) for each in products} - {None}
        launched = Counter(str(each.get("name")) for each in kernels if _external_id(each) in ids)
        by_operator = {SCALED_MM: len(products)} if products else {}
        return cls(
            products=len(products),
            carried_out_by=dict(launched) or by_operator,
            kernels=len(kernels),
            busy_ms=step_time.busy_ms(found) if kernels else 0.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedStep:
    """Both passes of one step."""

    forward: Pass
    backward: Pass

    @property
    def report(self) -> Float8Kernels:
        """As a worker reports it."""
        return Float8Kernels(forward=self.forward.carried_out_by, backward=self.backward.carried_out_by)

    @property
    def values(self) -> dict[str, float]:
        """Metric name -> value; nothing of kernels where none ran on a GPU."""
        kernels = self.forward.kernels + self.backward.kernels
        on_gpu = {
            "kernels_per_train_step": float(kernels),
            TRAIN_BUSY: self.forward.busy_ms + self.backward.busy_ms,
        }
        return {
            "float8_gemms_forward": float(self.forward.products),
            "float8_gemms_backward": float(self.backward.products),
            **(on_gpu if kernels else {}),
        }


def record(loss: Callable[[], torch.Tensor], clock: Clock, device: torch.device) -> RecordedStep:
    """What `loss` runs, and what its gradients run; raises NotCounted where the profiler refuses."""
    forward_events, value = _recorded(loss, clock, device)
    backward_events, _ = _recorded(lambda: value.backward(), clock, device)
    return RecordedStep(forward=Pass.of(forward_events), backward=Pass.of(backward_events))


def _recorded(run: Callable[[], T], clock: Clock, device: torch.device) -> tuple[list[Event], T]:
    on_gpu = (ProfilerActivity.CUDA,) if device.type == "cuda" else ()
    recorder = KinetoRecorder(ProfilerActivity.CPU, *on_gpu)
    clock.synchronize()
    recorder.start()
    found = run()
    clock.synchronize()
    return list(recorder.stop()), found


def _external_id(event: Event) -> object:
    arguments = event.get("args") or {}
    return arguments.get(EXTERNAL_ID)
