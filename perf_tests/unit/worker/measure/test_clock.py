"""Marks are as far apart as the time between them, on the host and on a device's stream."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from perf_tests.worker.measure.clock import CLOCKS, CudaClock, HostClock


def test_host_marks_are_milliseconds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    readings_s = iter([10.0, 10.25])
    monkeypatch.setattr(time, "perf_counter", lambda: next(readings_s))
    clock = HostClock()
    assert clock.mark().until_ms(clock.mark()) == 250.0


def test_host_clock_needs_no_wait() -> None:
    HostClock().synchronize()


class FakeEvent:
    """A CUDA event on a device that reaches each event 3 ms after the one before."""

    recorded = 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.recorded += 1
        self.at_ms = 3.0 * FakeEvent.recorded

    def elapsed_time(self, later: Any) -> float:
        return float(later.at_ms - self.at_ms)


def test_cuda_marks_are_events_recorded_on_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(FakeEvent, "recorded", 0)
    clock = CudaClock()
    first, _, third = (clock.mark() for _ in range(3))
    assert first.until_ms(third) == 6.0


def test_cuda_clock_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append("device"))
    CudaClock().synchronize()
    assert waits == ["device"]


def test_marks_of_two_clocks_are_not_subtracted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    with pytest.raises(AssertionError):
        HostClock().mark().until_ms(CudaClock().mark())


def test_each_kind_of_device_has_its_clock() -> None:
    assert {"cuda": CudaClock, "cpu": HostClock} == CLOCKS
