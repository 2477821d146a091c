"""Memory: bytes of weights, and peaks between two points in time."""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from perf_tests.protocol.reports import MemoryWindow
from perf_tests.worker.model.build import components

MIB = 1 << 20


def plain_tensors(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
    """The ordinary tensors that make up a tensor subclass, nested or not; an ordinary tensor itself."""
    inner = getattr(tensor, "__tensor_flatten__", None)
    if inner is None or type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return (tensor,)
    names, _ = inner()
    return itertools.chain.from_iterable(plain_tensors(getattr(tensor, name)) for name in names)


def device_of(tensors: Iterable[torch.Tensor]) -> str:
    """Type of the device that holds `tensors`: `cuda`, or `cpu, cuda` where some are on the host."""
    return ", ".join(sorted({tensor.device.type for tensor in tensors}))


def stored_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages behind `tensors`, each counted once."""
    storages = {
        plain.untyped_storage().data_ptr(): plain.untyped_storage().nbytes()
        for tensor in tensors
        for plain in plain_tensors(tensor)
    }
    return sum(storages.values())


def clear_workspaces() -> None:
    """Free the workspaces that cuBLAS keeps after its first GEMM, and the allocator counts as live memory."""
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)  # only in builds with CUDA
    if clear is not None:
        clear()


def weight_bytes(pipeline: Any, names: tuple[str, ...]) -> int:
    """Bytes of the parameters of the named components, scales included."""
    parts = components(pipeline)
    return stored_bytes(parameter for name in names for parameter in parts[name].parameters())


def component_bytes(pipeline: Any) -> dict[str, float]:
    """Metric name -> bytes of the parameters of each component, scales included."""
    parts = components(pipeline)
    return {f"{name}_bytes": float(stored_bytes(module.parameters())) for name, module in parts.items()}


def model_mib(pipeline: Any, device: torch.device) -> float:
    """MiB that the loaded pipeline occupies: live device memory, or on a CPU its parameters and buffers."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / MIB
    tensors = (
        tensor
        for module in components(pipeline).values()
        for tensor in itertools.chain(module.parameters(), module.buffers())
    )
    return stored_bytes(tensors) / MIB


# What is live


class _Mallinfo2(ctypes.Structure):
    """What glibc's mallinfo2 returns: see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def live_mib(device: torch.device) -> dict[str, tuple[float, ...]]:
    """Metric name -> what the allocators of the device and of the host hold, once garbage is collected.

    On a CPU they are the same.
    """
    gc.collect()
    host_mib = _host_allocator()() / MIB
    device_mib = torch.cuda.memory_allocated(device) / MIB if device.type == "cuda" else host_mib
    return {"live_allocated_mib": (device_mib,), "live_host_mib": (host_mib,)}


def held_mib(device: torch.device) -> float:
    """MiB in use on the whole device, whoever allocated them; on a CPU, what the allocator of the host holds.

    Libraries that torch's allocator knows nothing of allocate as well.
    """
    if device.type != "cuda":
        gc.collect()
        return _host_allocator()() / MIB
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / MIB


@functools.cache
def _host_allocator() -> Callable[[], int]:
    """Reads the bytes that are live on the host; resident memory where the C library does not tell, which
    also holds what was freed and not given back."""
    try:
        read = ctypes.CDLL(None).mallinfo2  # glibc 2.33
    except (AttributeError, OSError):
        return _resident_bytes
    read.restype = _Mallinfo2

    def live_bytes() -> int:
        counted = read()
        return int(counted.uordblks + counted.hblkhd)

    before = live_bytes()
    tensor = torch.empty(MIB, dtype=torch.uint8)
    # Another allocator may serve torch, of which malloc knows nothing.
    return live_bytes if live_bytes() - before >= tensor.nbytes else _resident_bytes


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


# Peaks


class Meter:
    """Peaks since the last `reset`."""

    def __init__(self, device: torch.device, device_used_mib: Callable[[], float | None] | None) -> None:
        self._cuda = device.type == "cuda"
        self._device_used_mib = device_used_mib
        self._device_peak_mib: float | None = None

    def reset(self) -> None:
        """Begin a new window."""
        self._device_peak_mib = None
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        self.look()

    def look(self) -> None:
        """Sample the memory used on the whole device, which has no peak counter; not during a generation."""
        used_mib = self._device_used_mib() if self._device_used_mib else None
        if used_mib is not None:
            self._device_peak_mib = max(used_mib, self._device_peak_mib or 0.0)

    def read(self) -> MemoryWindow:
        """The peaks of the window so far."""
        self.look()
        return MemoryWindow(
            allocated_mib=torch.cuda.max_memory_allocated() / MIB if self._cuda else None,
            reserved_mib=torch.cuda.max_memory_reserved() / MIB if self._cuda else None,
            device_mib=self._device_peak_mib,
            # Linux reports kibibytes.
            rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )


def peaks(windows: Iterable[MemoryWindow]) -> dict[str, float]:
    """Metric name -> highest value over all windows, for the counters that the device has."""
    found = list(windows)
    highest = {
        "peak_allocated_mib": [w.allocated_mib for w in found if w.allocated_mib is not None],
        "peak_reserved_mib": [w.reserved_mib for w in found if w.reserved_mib is not None],
        "peak_device_mib": [w.device_mib for w in found if w.device_mib is not None],
        "peak_rss_mib": [w.rss_mib for w in found],
    }
    return {name: max(values) for name, values in highest.items() if values}
