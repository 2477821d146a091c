"""Which allocations a generation holds at its peak, from the history that torch's allocator keeps."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perf_tests.protocol.profiles import Allocation, Snapshot, Snapshotted
from perf_tests.worker.inspection.evidence.kept_file import keep

MOST = 5
"""Allocations that are named."""
MAX_EVENTS = 100_000
"""Of the history, each of several KB."""
MIB = 1 << 20
INTERNAL = ("/torch/", "??", "<frozen")
"""What the file of a frame contains that says little about who asked for memory."""
ALLOCATED, FREED = "alloc", "free_requested"
Entry = Mapping[str, Any]
"""Of the allocator's trace: `action`, `addr`, `size` and `frames`."""


def take(generate: Callable[[], object], allocator: Any, request: Snapshot) -> Snapshotted:
    """Record `generate`; what cannot be recorded or kept is told of, not raised.

    `allocator` is `torch.cuda.memory`. An error of `generate` is raised.
    """
    before_mib = allocator.memory_allocated() / MIB
    allocator._record_memory_history("all", context="alloc", stacks="python", max_entries=MAX_EVENTS)
    try:
        generate()
        taken = allocator._snapshot()
    finally:
        allocator._record_memory_history(None)
    history = [entry for trace in taken.get("device_traces", ()) for entry in trace]
    if len(history) >= MAX_EVENTS:
        return Snapshotted(problem=f"a generation has more than {MAX_EVENTS} allocations")
    peak_mib, largest = at_peak(history)
    packed = gzip.compress(pickle.dumps(taken), mtime=0)
    problem = keep("snapshot", packed, Path(request.file), request.limit_mb)
    return Snapshotted(
        largest=largest,
        before_mib=before_mib,
        peak_mib=peak_mib,
        file=None if problem else request.file,
        problem=problem,
    )


def at_peak(history: Sequence[Entry]) -> tuple[float, tuple[Allocation, ...]]:
    """MiB that were held at the peak of those that the history allocates, and the largest allocations."""
    held: dict[int, int] = {}
    total = highest = peak = 0
    for number, entry in enumerate(history, start=1):
        total += _step(held, entry)
        if total > highest:
            highest, peak = total, number
    held.clear()
    by_address: dict[int, Entry] = {}
    for entry in history[:peak]:
        _step(held, entry)
        if entry["action"] == ALLOCATED:
            by_address[entry["addr"]] = entry
    largest = sorted(held, key=lambda address: -held[address])[:MOST]
    return highest / MIB, tuple(
        Allocation(mib=held[address] / MIB, where=where(by_address[address].get("frames", ())))
        for address in largest
    )


def _step(held: dict[int, int], entry: Entry) -> int:
    """Follow one entry; by how many bytes what is held grows."""
    if entry["action"] == ALLOCATED:
        held[entry["addr"]] = entry["size"]
        return int(entry["size"])
    if entry["action"] == FREED:
        return -held.pop(entry["addr"], 0)  # what was there before the history began is not in it
    return 0


def where(frames: Iterable[Mapping[str, Any]]) -> str:
    """The innermost frame that is not torch's own, or the innermost one; empty without any."""
    known = [*frames]
    telling = [each for each in known if not any(part in each["filename"] for part in INTERNAL)]
    for frame in (*telling, *known):
        name = "/".join(Path(frame["filename"]).parts[-3:])
        return f"{name}:{frame['line']} {frame['name']}"
    return ""
