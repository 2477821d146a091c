"""What a worker records once everything is timed: what a step consists of, and what memory holds."""

from __future__ import annotations

from perf_tests.protocol.base import Struct

MAX_KERNELS = 4000
"""Different kernels of one step that are reported, those that take longest."""


class Profile(Struct, tag="profile"):
    """Record one steady step of a generation of its own -> Profiled."""

    trace: str
    """File for the gzipped trace, in Chrome's format."""
    limit_mb: float
    """Of that file."""


class KernelTime(Struct):
    """A kernel of a GPU, or an operator of a CPU without what it calls, in one step."""

    name: str
    kind: str
    """What it does, as `GEMM`; empty for an operator."""
    shape: str
    """Of the tensors that it was called with; empty where nothing tells."""
    launches: int
    us: float
    """Of all launches."""


class Profiled(Struct, tag="profiled"):
    """The step was recorded, as far as `problem` does not say otherwise."""

    kernels: tuple[KernelTime, ...] = ()
    trace: str | None = None
    """The file; None where it was not kept."""
    problem: str = ""
    """Why nothing was recorded, or no trace kept; empty where neither is missing."""


class Snapshot(Struct, tag="snapshot"):
    """Record the allocations of one generation on a GPU -> Snapshotted."""

    file: str
    """For the gzipped snapshot, as `torch.cuda.memory._dump_snapshot` pickles it."""
    limit_mb: float
    """Of that file."""


class Allocation(Struct):
    """Memory that was held at the peak."""

    mib: float
    where: str
    """`file:line function` of the code that asked for it; empty where nothing tells."""


class Snapshotted(Struct, tag="snapshotted"):
    """The allocations were recorded, as far as `problem` does not say otherwise."""

    largest: tuple[Allocation, ...] = ()
    """Of those that were made during the generation and held at its peak."""
    before_mib: float = 0.0
    """Allocated before the generation."""
    peak_mib: float = 0.0
    """What the generation held at its peak beyond that."""
    file: str | None = None
    """None where it was not kept."""
    problem: str = ""
    """As `Profiled.problem`."""
