"""Points in time, taken on the device's stream or on the host."""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Mark(Protocol):
    """A point in time that can be subtracted from a later one of the same clock."""

    def until_ms(self, later: Mark) -> float:
        """Milliseconds from here to `later`; valid once the device is synchronised."""


class Clock(Protocol):
    """A source of marks."""

    def mark(self) -> Mark:
        """The point in time at which the work submitted so far is done."""

    def synchronize(self) -> None:
        """Wait until all work submitted so far is done."""


class CudaMark:
    """A CUDA event on the current stream."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def until_ms(self, later: Mark) -> float:
        """Device time between two events of one stream."""
        assert isinstance(later, CudaMark)
        return float(self.event.elapsed_time(later.event))


class CudaClock:
    """Device time: unaffected by how far the host has run ahead."""

    def mark(self) -> CudaMark:
        """An event recorded on the current stream."""
        return CudaMark()

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize()


class HostMark:
    """A reading of the monotonic host clock."""

    def __init__(self) -> None:
        self.seconds = time.perf_counter()

    def until_ms(self, later: Mark) -> float:
        """Host time between two readings."""
        assert isinstance(later, HostMark)
        return (later.seconds - self.seconds) * 1e3


class HostClock:
    """Host time, for devices that work synchronously."""

    def mark(self) -> HostMark:
        """A reading of the host clock."""
        return HostMark()

    def synchronize(self) -> None:
        """Nothing to wait for."""


CLOCKS: dict[str, type[CudaClock] | type[HostClock]] = {"cuda": CudaClock, "cpu": HostClock}
