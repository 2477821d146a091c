"""How long tasks had to wait for a processor of this host (Linux), for the parent and for workers."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

PRESSURE = (Path("/sys/fs/cgroup/cpu.pressure"), Path("/proc/pressure/cpu"))
"""Pressure stall information: of this container where it has its own, because other tenants of a large host,
on processors that are not ours, do no harm."""


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
