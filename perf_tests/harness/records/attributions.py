"""Which package a change comes from: the stacks that were compared, and the answer, as `run.json` holds them.

Two axes, torch and torchao, each as it last was good and as it is new, make four stacks. Triton and the
libraries of CUDA belong to torch, whose wheel pins them.
"""

from __future__ import annotations

from enum import StrEnum

from perf_tests.protocol.base import Struct


class Corner(StrEnum):
    """One of the four stacks."""

    GOOD = "good"
    """Both as they last were good."""
    NEW_TORCH = "new_torch"
    NEW_TORCHAO = "new_torchao"
    NEW = "new"
    """Both new: the stack under test."""

    @property
    def has_new_torch(self) -> bool:
        """Whether torch is new in it, whatever torchao is."""
        return self in (Corner.NEW, Corner.NEW_TORCH)

    @property
    def has_new_torchao(self) -> bool:
        """Whether torchao is new in it, whatever torch is."""
        return self in (Corner.NEW, Corner.NEW_TORCHAO)


def diagonal_id(case_id: str, corners: tuple[Corner, Corner]) -> str:
    """The id of the comparison of a case under two stacks, the candidate first."""
    return f"{case_id} {corners[0]} {corners[1]}"


def cell_id(case_id: str, corner: Corner) -> str:
    """The id of a case in one process of one stack."""
    return f"{case_id} {corner}"


class Blame(StrEnum):
    """Where a change comes from."""

    TORCH = "torch"
    TORCHAO = "torchao"
    EACH = "each its part"
    """Both, and what they do adds up."""
    TOGETHER = "only together"
    """Each alone changes little: one needs the other."""
    EITHER = "either alone"
    """Each alone changes as much as both."""
    BOTH = "both"
    """Which of the three could not be measured."""
    PARTLY = "a stack is missing"
    """One of the two mixed stacks cannot be measured; what the other one alone explains is on record."""
    NOT_REPRODUCED = "not reproduced"
    """The good stack has the same value today: the card or the baseline moved, not a package."""
    UNKNOWN = "not attributed"


class Amount(Struct):
    """A change with its 95 % interval: of a time in percent, of what is exact in the metric's units."""

    value: float
    low: float
    high: float


class CellReport(Struct):
    """One of the four stacks in an attribution."""

    corner: Corner
    python: str
    """The interpreter; empty where there is none."""
    packages: dict[str, str]
    """What a worker reported of torch, triton and torchao; empty before one was ready."""
    status: str
    """`measured`, `not asked`, or the status of what went wrong."""
    reason: str = ""
    """Empty for `measured` and `not asked`."""
    value: float | None = None
    """Of a metric that one process measures exactly; None for a time, and where nothing was measured."""


class Attribution(Struct):
    """Red cases that are alike in scheme, compile mode and metric, and which package made them red."""

    case: str
    """The one that was measured for all of them."""
    metric: str
    scheme: str
    compile: str
    platform: str
    blame: Blame
    sentence: str
    """The answer in words, always."""
    members: tuple[str, ...]
    """Ids of the red cases, `case` first."""
    whole: Amount | None = None
    """Both new against both good (D1); None where it was not measured."""
    mixed: Amount | None = None
    """Torch new against torchao new (D2); None where it was not measured."""
    torch_alone: Amount | None = None
    """Torch new against both good; None where nothing asked for it."""
    torchao_alone: Amount | None = None
    """Torchao new against both good; None where nothing asked for it."""
    torch: Amount | None = None
    """What of `whole` comes from torch; None without `mixed`."""
    torchao: Amount | None = None
    """What of `whole` comes from torchao; None without `mixed`."""
    twin: Amount | None = None
    """`whole` of the bf16 twin, which has no torchao; None where it was not compared, too."""
    cells: tuple[CellReport, ...] = ()

    @property
    def id(self) -> str:
        """What tells it from the others of a record."""
        return f"{self.case} {self.metric}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What its members have in common."""
        return self.scheme, self.compile, self.metric
