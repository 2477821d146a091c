"""What was recorded of a red case once everything was timed, as `run.json` holds it: what may explain it."""

from __future__ import annotations

import msgspec

from perf_tests.protocol.base import Struct
from perf_tests.protocol.profiles import Allocation


class KernelChange(Struct):
    """What a step spends on the same work under two stacks: the same kernel, or others in its place."""

    stable: tuple[str, ...]
    """Names; empty for what is new."""
    candidate: tuple[str, ...]
    """Names; empty for what is gone."""
    shape: str
    """Of the tensors; empty where it is not known or not the same."""
    stable_us: float
    candidate_us: float
    stable_launches: int
    candidate_launches: int

    @property
    def more_us(self) -> float:
        """How much longer it takes."""
        return self.candidate_us - self.stable_us


class StepChange(Struct):
    """One step under two stacks."""

    stable_us: float
    """Of all kernels."""
    candidate_us: float
    slower: tuple[KernelChange, ...]
    """Those that cost most more, the worst first."""
    new: int
    """Kernels without a counterpart under the stable stack."""
    gone: int
    """Kernels without one under the candidate."""
    gone_us: float
    """What those took."""


class Evidence(Struct):
    """What there is on one red case; each part with the sentence that says why it is missing."""

    id: str
    """Of the case."""
    script: str = ""
    """A file of the run directory that reproduces its steps without this suite."""
    script_problem: str = ""
    traces: dict[str, str] = msgspec.field(default_factory=dict)
    """Side -> file of the run directory: a trace in Chrome's format, gzipped."""
    step: StepChange | None = None
    profile_problem: str = ""
    snapshot: str = ""
    """A file of the run directory: torch's memory snapshot, gzipped."""
    largest: tuple[Allocation, ...] = ()
    """What was allocated during a generation and held at its peak, the largest first."""
    before_mib: float = 0.0
    """Allocated before it."""
    peak_mib: float = 0.0
    """What it held at its peak beyond that."""
    snapshot_problem: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """Those of the run directory, the smallest first."""
        return tuple(filter(None, (self.script, *self.traces.values(), self.snapshot)))
