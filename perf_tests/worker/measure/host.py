"""The processes of the host: which belong to this session, and which compute on a GPU (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

from perf_tests.protocol.pressure import HOST_SHARED

PROC = Path("/proc")
COMPUTING = "/dev/nvidia-uvm"
"""A device that a process using CUDA keeps open, and one that only uses NVML does not."""

CARD = os.environ.get("CUDA_VISIBLE_DEVICES") if HOST_SHARED in os.environ else None
"""The GPU of this worker, where its session measures on others at the same time; None where not."""


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


def computing(pids: frozenset[int], proc: Path = PROC, card: str | None = CARD) -> frozenset[int]:
    """The processes among `pids` that hold a CUDA context, on any of the GPUs that this process sees.

    `card` is the only GPU that they must see, where the session measures on others, too; None for any.
    """
    return frozenset(
        pid
        for pid in pids
        if _holds(proc / str(pid) / "fd", COMPUTING) and card in (None, _visible(proc / str(pid)))
    )


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


def _visible(process: Path) -> str | None:
    """The GPUs that a process was started with; None where it does not say."""
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return None  # the process has ended, or belongs to another user
    name = b"CUDA_VISIBLE_DEVICES="
    return next((each.removeprefix(name).decode() for each in variables if each.startswith(name)), None)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # has been closed
