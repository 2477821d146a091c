"""The time that a GPU is busy in a step, of recordings without a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from perf_tests.tables.cases import Case
from perf_tests.tables.metrics.spec import STEP_BUSY
from perf_tests.worker.inspection import busy_time
from perf_tests.worker.inspection.kernels import Event, NotCounted
from perf_tests.worker.measure.clock import HostClock

Make = Callable[..., Any]


class FakeRecorder:
    """A recorder of a kernel of 2 ms for each call of the transformer, or one that refuses."""

    def __init__(self, pipeline: Any, refusal: str | None = None) -> None:
        self._refusal = refusal
        self._calls = 0
        self.calls_before = 0
        pipeline.transformer.register_forward_pre_hook(self._called)

    def _called(self, *_: Any) -> None:
        self._calls += 1

    def start(self) -> None:
        """Refuse if told to."""
        if self._refusal:
            raise NotCounted(self._refusal)
        self.calls_before = self._calls

    def stop(self) -> Iterable[Event]:
        """The kernels of the calls since `start`, 10 ms apart."""
        count = self._calls - self.calls_before
        return [{"cat": "kernel", "name": "gemm", "ts": 10_000.0 * at, "dur": 2000.0} for at in range(count)]


def of_steps(case: Case, steps: int) -> Case:
    return dataclasses.replace(case, workload=dataclasses.replace(case.workload, steps=steps))


@pytest.mark.parametrize("steps", [2, 4, 12])
def test_steady_steps_are_recorded_and_averaged(
    make_pipeline: Make, make_case: Callable[..., Case], steps: int
) -> None:
    pipeline = make_pipeline()
    recorder = FakeRecorder(pipeline)
    found = busy_time.measure(pipeline, of_steps(make_case(), steps), HostClock(), recorder)
    assert found == {STEP_BUSY: 2.0}
    assert recorder.calls_before == 1  # the first step is not a steady one


def test_a_refusal_is_a_warning_and_no_value(make_pipeline: Make, make_case: Callable[..., Case]) -> None:
    pipeline = make_pipeline()
    with pytest.warns(RuntimeWarning, match="step_busy_ms of .* was not measured: CUPTI is in use"):
        assert (
            busy_time.measure(pipeline, make_case(), HostClock(), FakeRecorder(pipeline, "CUPTI is in use"))
            == {}
        )
