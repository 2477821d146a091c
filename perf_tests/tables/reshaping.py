"""What changes between the calls of a compiled build: resolution and batch size, as its users change them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perf_tests.tables.pipelines.spec import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Reshaping:
    """After all that is timed, the same process generates in other shapes, each of them twice."""

    dynamic: bool = False
    """Compile for any shape (`torch.compile(dynamic=True)`), not for the one that is met."""

    @property
    def id(self) -> str:
        """What a recipe's id says of it; never parsed back."""
        return "reshaped-dynamic" if self.dynamic else "reshaped"

    def workloads(self, timed: Workload) -> tuple[Workload, ...]:
        """What is generated after `timed`: in two smaller resolutions, then in a batch of twice the size."""
        narrow = replace(timed, width=timed.width * 3 // 4)
        small = replace(narrow, height=timed.height * 3 // 4)
        return (narrow, small, replace(timed, batch_size=2 * timed.batch_size))
