"""How long tasks had to wait for a processor of this host (Linux), for the parent and for workers."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

PRESSURE = (Path("/sys/fs/cgroup/cpu.pressure"), Path("/proc/pressure/cpu"))
"""Pressure stall information: of this container where it has its own, because other tenants of a large host,
on processors that are not ours, do no harm."""

HOST_SHARED = "PERF_HOST_SHARED"
"""Variable of a worker whose session measures on other cards of the host as well: what others wait for says
nothing about it."""


def load_per_core() -> float:
    """Load average of the whole host over the last minute, per processor."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def stalled_us(files: tuple[Path, ...] = PRESSURE) -> int | None:
    """Microseconds so far in which some task waited for a processor; None where the kernel does not tell.

    This is `total` in the line `some` (kernel documentation, accounting/psi).
    """
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("some "):
                return int(line.rpartition("total=")[2])
    return None


@dataclass(frozen=True, slots=True)
class PressureMeter:
    """Measures for how much of the time since its creation some task waited for a processor."""

    started_s: float = field(default_factory=time.monotonic)
    stalled_us: int | None = field(default_factory=stalled_us)

    def pressure_pct(self) -> float | None:
        """Percent of the time since creation; None where the kernel does not tell."""
        now_us, elapsed_s = stalled_us(), time.monotonic() - self.started_s
        if now_us is None or self.stalled_us is None or elapsed_s <= 0:
            return None
        return (now_us - self.stalled_us) / 1e4 / elapsed_s


def delayed_ns(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Nanoseconds so far in which the main thread of a process was ready and had no processor; None where
    the kernel does not tell.

    This is the second field of `schedstat` (kernel documentation, scheduler/sched-stats).
    """
    try:
        return int((proc / str(pid) / "schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class DelayMeter:
    """Measures for how much of the time since its creation the main thread of one process had to wait for a
    processor, whoever had it."""

    pid: int = field(default_factory=os.getpid)
    started_s: float = field(default_factory=time.monotonic)
    delayed_ns: int | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "delayed_ns", delayed_ns(self.pid))

    def pressure_pct(self) -> float | None:
        """Percent of the time since creation; None where the kernel does not tell."""
        now_ns, elapsed_s = delayed_ns(self.pid), time.monotonic() - self.started_s
        if now_ns is None or self.delayed_ns is None or elapsed_s <= 0:
            return None
        return (now_ns - self.delayed_ns) / 1e7 / elapsed_s
