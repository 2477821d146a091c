"""The host of the GPU: how busy it is, and which processes belong to this session (Linux)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
PRESSURE = (Path("/sys/fs/cgroup/cpu.pressure"), PROC / "pressure/cpu")
"""Pressure stall information: of this container where it has its own, because other tenants of a large host,
on processors that are not ours, do no harm."""
COMPUTING = "/dev/nvidia-uvm"
"""A device that a process using CUDA keeps open, and one that only uses NVML does not."""


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


def session_pids(proc: Path = PROC, root: int | None = None) -> frozenset[int]:
    """The process that started this one and all its descendants: the workers of one session take turns."""
    children: dict[int, list[int]] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit() and (parent := _parent(folder)) is not None:
            children.setdefault(parent, []).append(int(folder.name))
    found, waiting = set(), [os.getppid() if root is None else root]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return frozenset(found)


def computing(pids: frozenset[int], proc: Path = PROC) -> frozenset[int]:
    """The processes among `pids` that hold a CUDA context, on any GPU."""
    return frozenset(pid for pid in pids if _holds(proc / str(pid) / "fd", COMPUTING))


def _parent(folder: Path) -> int | None:
    try:
        # The second field is the command in brackets, which may hold spaces and brackets.
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None  # the process has ended


def _holds(descriptors: Path, device: str) -> bool:
    try:
        return any(_target(link).startswith(device) for link in descriptors.iterdir())
    except OSError:
        return False  # the process has ended, or belongs to another user


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # has been closed
