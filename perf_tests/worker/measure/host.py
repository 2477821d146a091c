"""The processes of the host: which belong to this session, and which compute on a GPU (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
COMPUTING = "/dev/nvidia-uvm"
"""A device that a process using CUDA keeps open, and one that only uses NVML does not."""


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
